"""The folder of a server.

home          its settings and files
registry      approved institutions
certificates  its own certificate authority
queue         runs, one at a time
"""
