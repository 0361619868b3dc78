"""The step that follows a round, wherever it is taken.

optimizer  applies a round's update to the adapter
"""
