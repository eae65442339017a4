"""What the driver does, on data sets so small that they say nothing of speed."""

from benchmarks import growth


def test_every_function_gets_a_row(capsys):
    growth.main(["--images", "60"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["microseconds", "a", "record,", "memory", "60", "MiB"]
    assert [line.split()[0] for line in lines[1:4]] == ["write_manifest", "read_manifest", "Manifest.fingerprint"]
    assert {"run_image_stage", "Artifact.complete", "own_interval"} <= {line.split()[0] for line in lines}
    assert lines[-1].startswith("all together") and all(float(line.split()[-2]) >= 0 for line in lines[1:])
    assert float(lines[-1].split()[-1].replace(",", "")) > 50
