"""Base models with an adapter.

base_models    find, load and hash a base
base_files     the files that its hash covers
devices        device and precision
memory         what a base and a step need, and what a device has
families       the layers that are adapted where a run names none
adapter        base, method and head as one module
attention      one fixed kernel of attention
checkpointing  layers that compute again in the backward pass
quantization   a base in four or eight bits
lower_layers   frozen layers below the adapter
plain_texts    public constants that standardise what a head reads
adversarial    a second loss of each text, moved where the first rises
warm_model     one loaded model for all rounds
evaluation     predictions and accuracy
scores         accuracy by institution, without torch
"""
