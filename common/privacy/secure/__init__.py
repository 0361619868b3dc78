"""The noise of a sum that several institutions share, as integers. Pure: no files, no keys, no network.

sharing            members, grid and share of the noise, as a plan holds them
lattice            clipped gradients in whole grid steps
discrete_gaussian  exact samples of Gaussian noise on the integers
share              draw -> gradients -> clip -> lattice -> sum -> noise: one institution's share of a sum
conditions         epsilon if so many members collude
"""
