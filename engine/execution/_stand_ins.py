import numpy as np
import torch
from engine.execution.sampler import uniforms
from engine.kernels.sampling import draw
def sample(logits, filters, seeds, positions):
    logits=logits.float()
    tokens=logits.argmax(-1)
    rows=(filters.temperature>0).nonzero()[:,0]
    if len(rows):
        u=torch.from_numpy(uniforms(seeds[rows].numpy().astype(np.uint64),positions[rows].numpy().astype(np.int64)))
        tokens[rows]=draw(logits[rows],filters.at(rows),u)
    return tokens
