"""Public texts, shared out to imagined institutions.

texts         texts that packages carry
partition     records to institutions
institutions  private and public shares of each
"""
