"""Texts that a model writes: its loss on an answer's tokens, writing, and the metrics of written texts.

language_model  a base that writes, as the module to train
answer_loss     the loss on an answer's tokens, whose logits are never held together
writing         greedy writing
text_metrics    perplexity, BLEU, chrF, ROUGE, exact match
"""

IGNORED = -100  # the target of a token without a loss; PyTorch's own choice
