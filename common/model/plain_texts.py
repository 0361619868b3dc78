"""Public constants of a base: mean and spread of its states over plain texts, to standardise what a head reads."""

import math
from typing import Any

import torch
from torch import Tensor

from confide.common.errors import InputError
from confide.common.tasks.heads import TokenHead

# Sentences of many kinds, written for this purpose. A mean over texts of random tokens is further from that of real
# texts (docs/decisions.md). A change here changes what a trained head means: raise `protocol.versions.PROTOCOL`.
TEXTS = (
    "The train to the coast leaves at half past seven every morning.",
    "I ordered this lamp in March and it stopped working after two weeks.",
    "What is the highest mountain in the southern part of the country?",
    "The patient was given 5 mg twice a day and reported no pain at discharge.",
    "She opened the window, looked down into the garden and laughed.",
    "Parliament voted on Tuesday to raise the tax on fuel by four percent.",
    "Best holiday we have ever had, thank you all so much!!!",
    "The function returns an empty list if the file cannot be read.",
    "Rain is expected in the north, with strong winds towards the evening.",
    "My neighbour's dog barks all night and nobody does anything about it.",
    "Please find attached the contract that we discussed on the phone.",
    "The film is too long, but the actors save it in the last half hour.",
    "Water boils at a lower temperature where the air is thin.",
    "who else is watching the game tonight",
    "Add the onions, stir for five minutes and let the soup cool down.",
    "The tenant shall pay the rent in advance on the first day of each month.",
    "Our team lost three to one, and the coach resigned the same day.",
    "How do I reset my password if I no longer have the old phone?",
    "The old bridge was built in 1874 by an engineer from Prague.",
    "Blood pressure 130 over 85, heart rate regular, lungs clear.",
    "He never wrote back, which was perhaps the kindest thing he could do.",
    "Shares of the company fell sharply after the report was published.",
    "The room was clean and the staff were friendly, but breakfast was poor.",
    "Two charges of the same sign push each other away.",
    "Der Zug hatte wieder eine halbe Stunde Verspätung.",
    "Wo kann ich hier eine Fahrkarte kaufen?",
    "Le médecin a prescrit du repos pendant trois jours.",
    "Ce restaurant est cher, mais la cuisine est excellente.",
    "El paquete llegó tarde y la caja estaba rota.",
    "¿Cuántos habitantes tiene la capital?",
    "O relatório foi publicado ontem pela manhã.",
    "La riunione è stata spostata a giovedì prossimo.",
    "Погода сегодня хорошая, и мы пойдём в парк.",
    "今天的会议改到下午三点。",
    "この本はとても面白かったです。",
    "الطبيب غير موجود اليوم، عد غدا من فضلك.",
)
_LEAST = 0.1  # of a coordinate's deviation, over the median of all: one that hardly moves must not count for much


def standardise(head: TokenHead, tokenizer: Any, max_length: int) -> None:
    """Set a head's constants from the states of its base on `TEXTS`, all tokens together.

    The adapter must be at its start values, where the base is as it was. Machines differ in the last bits of the
    result, and with a base in bfloat16 by a little more. That touches no guarantee: a constant is public.

    Raises:
        InputError: the base's states are not finite.
    """
    states_NH = torch.cat([_states(head, tokenizer, text, max_length) for text in TEXTS])
    deviation = states_NH.std(dim=0, correction=0)
    if not torch.isfinite(deviation).all():
        raise InputError("model.base gives states that are not finite for plain texts; use another base")
    median = float(deviation.median())
    head.centre.copy_(states_NH.mean(dim=0))
    if median > 0:
        head.spread.copy_(deviation.clamp(min=_LEAST * median) * math.sqrt(len(deviation)) / head.length)


def _states(head: TokenHead, tokenizer: Any, text: str, max_length: int) -> Tensor:
    """Return the last hidden state of each token of a text, shape ``(T, hidden_size)``, float64."""
    tokens = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    ids = torch.tensor([tokens or [0]], device=head.centre.device)
    with torch.no_grad():
        states: Tensor = head.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return states[0].float().cpu().double()
