"""What a run leaves behind.

run_directory  its files
report_facts   what report and card are told
report         report.html
progress       what a person sees meanwhile
"""
