"""``python -m producer.simulator``: the same as ``producer simulate``."""

from producer.simulator.command import simulate

if __name__ == "__main__":
    simulate(prog_name="producer simulate")
