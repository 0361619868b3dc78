"""run.toml and what every settings file has in common.

run         run.toml as a whole
sections    its sections that institutions agree to
simulation  its sections that nobody agrees to
toml        TOML files as checked settings
places      paths that count from the file's folder
accountant  who computes noise and epsilon
"""
