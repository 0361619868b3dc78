"""A server's folder.

home          its settings and files
registry      approved institutions
certificates  its own authority
queue         runs, one at a time
"""
