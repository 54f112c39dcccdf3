"""The program that is started cold and warm: ``python -m demo.report``."""

from demo.heavy import report

if __name__ == "__main__":
    report()
