"""The results of a run.

run_directory  its files
report_facts   facts for the report and the model card
report         report.html
findings       comparisons as sentences
progress       the display while a run goes on
tracking       its curves in TensorBoard or MLflow
"""
