"""``python -m qaclims_ray``: the same as the ``qaclims`` command."""

from qaclims_ray.cli import main

if __name__ == "__main__":
    main()
