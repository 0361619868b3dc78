"""The words of a text to which a prediction owes itself: integrated gradients over the base's input embeddings.

targets       the values that are explained: of a label, an entity, a score
spans         the characters at which each token stands
attributions  the share of each token in such a value
explaining    explanations of a record's prediction
coloured      explanations as text for a terminal
page          explanations as an HTML page
"""
