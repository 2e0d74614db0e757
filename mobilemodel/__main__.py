"""``python -m mobilemodel``: the command line."""

from mobilemodel.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit()
