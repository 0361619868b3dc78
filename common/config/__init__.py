"""run.toml, and the common base of all settings files.

run         run.toml as a whole
sections    its sections that institutions agree to
simulation  its sections for simulations alone
faults      plain words for what is wrong in a file
toml        TOML files as checked settings
places      paths that count from the file's folder
shared_noise  the rules of a run whose institutions share noise, and what follows from them
accountant  the source of noise and epsilon
"""
