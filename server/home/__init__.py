"""The folder of a server.

home          its settings and files
registry      approved institutions
certificates  its own certificate authority
admission     admits an institution
queue         runs, one at a time
locking       a run.toml as the locked run
"""
