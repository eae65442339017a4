"""What the driver does, on data sets so small that they say nothing of speed."""

from benchmarks import growth


def test_every_function_gets_a_row(capsys):
    growth.main(["--images", "60"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["microseconds", "a", "record", "60"]
    assert [line.split()[0] for line in lines[1:4]] == ["write_manifest", "read_manifest", "Manifest.fingerprint"]
    assert lines[-2].startswith("all together") and all(float(line.split()[-1]) >= 0 for line in lines[1:])
    assert lines[-1].startswith("memory at its highest, MiB") and float(lines[-1].split()[-1].replace(",", "")) > 50
