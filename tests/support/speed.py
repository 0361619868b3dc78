"""How tests compute: on the CPU, whatever the machine has."""

from confide.common.config.simulation import SpeedSection

CPU = SpeedSection(device="cpu")
