"""Models with a head: the one that transformers gives a family for a task, masked language models, whole
checkpoints."""

import numpy as np
import torch
import torch.nn.functional as F

import common
from data.cli import InputError

LBFGS_STEPS = 60
L2_PENALTY = 1e-4
HEADS = {  # kinds of heads, as transformers spells them in the names of classes and of mappings
    "PreTraining": "PRETRAINING",
    "MaskedLM": "MASKED_LM",
    "TokenClassification": "TOKEN_CLASSIFICATION",
    "SequenceClassification": "SEQUENCE_CLASSIFICATION",
    "QuestionAnswering": "QUESTION_ANSWERING",
}


def load_with_head(name, kind, labels):
    """Return transformers' AutoModelFor`kind` in float32 on the CPU, the head that this family has, with a new last
    layer.

    kind: 'TokenClassification', 'SequenceClassification' or 'QuestionAnswering'; labels: their names. The encoder is
    its base_model. The last layer, and what else the folder lacks, is random. Raises InputError.
    """
    config = common.load_config(name)
    auto_class = auto_class_for(config, kind)
    if auto_class is None:
        raise InputError(f"{name}: transformers has no model of type {config.model_type} for {kind}; {common.ENCODER}")
    config.id2label, config.label2id = dict(enumerate(labels)), {label: n for n, label in enumerate(labels)}
    settings = {"config": config, "attn_implementation": common.pick_attention(), "ignore_mismatched_sizes": True}
    model, _ = common.load_weights(name, auto_class, **settings)
    common.final_norm(name, model.base_model)
    head = last_layer(model)
    torch.nn.init.normal_(head.weight, std=getattr(config, "initializer_range", 0.02))
    torch.nn.init.zeros_(head.bias)
    inside = {id(module) for module in model.base_model.modules()}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and id(module) not in inside:
            module.forward = in_float32(module.forward)
    return model


def last_layer(model):
    """Return the linear layer that gives a model of load_with_head its scores."""
    inside = {id(module) for module in model.base_model.modules()}
    outside = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and id(module) not in inside]
    return next(module for module in reversed(outside) if module.out_features == model.config.num_labels)


def in_float32(forward):
    """Wrap a layer's forward so that it runs in float32 inside autocast."""

    def run(hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float())

    return run


def fit_logistic_regression(layer, states, labels):
    """Set a linear layer to logistic regression of labels (N,) on states (N, H): L-BFGS, with L2_PENALTY times the
    squared weights."""
    torch.nn.init.zeros_(layer.weight)
    solver = torch.optim.LBFGS(layer.parameters(), max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        value = F.cross_entropy(layer(states), labels) + L2_PENALTY * layer.weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    solver.zero_grad()


def load_whole(name, masked=False):
    """Return (model, missing): the model in float32 with all that its folder holds, or, `masked`, with its MLM head.

    missing: the names of the weights that the class has and the folder lacks; these are random. Raises InputError.
    """
    from transformers import AutoModel

    config = common.load_config(name)
    classes = [auto_class_for(config, kind) for kind in (["MaskedLM"] if masked else ["PreTraining", "MaskedLM"])]
    if masked and None in classes:
        kind = f"a masked-language-model head for models of type {config.model_type}"
        raise InputError(f"{name}: transformers has no {kind}; {common.ENCODER}")
    for auto_class in filter(None, classes):  # BERT's of pretraining has a second head, which a folder may lack
        model, missing = common.load_weights(name, auto_class)
        if masked or all(key.startswith(model.base_model_prefix + ".") for key in missing):
            return model, missing
    return common.load_weights(name, AutoModel)


def auto_class_for(config, kind):
    """Return transformers' AutoModelFor`kind`, None where it has none for this family."""
    import transformers

    known = type(config) in getattr(transformers, f"MODEL_FOR_{HEADS[kind]}_MAPPING")
    return getattr(transformers, f"AutoModelFor{kind}") if known else None


def apply_head(whole, states):
    """Return a model's scores for hidden states (N, H), (N, scores): its encoder's place is taken, whatever its head is
    called."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    output = BaseModelOutputWithPooling(last_hidden_state=states[None], pooler_output=states[:1])
    encoder, forward = whole.base_model, whole.base_model.forward
    encoder.forward = lambda *_, **__: output
    try:
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        made = whole(input_ids=ids)
        return (made.prediction_logits if "prediction_logits" in made else made.logits)[0]
    finally:
        encoder.forward = forward


def put_weights(whole, weights, new_id):
    """Put trained weights, of an encoder or of a model with its head, into `whole`, which has all the embedding rows.

    weights: a state dict. new_id: trim_embeddings' array, or None.
    """
    target = whole if any(key.startswith(whole.base_model_prefix + ".") for key in weights) else whole.base_model
    embedding = target.get_input_embeddings().weight
    name = next(name for name, parameter in target.named_parameters() if parameter is embedding)
    rows = slice(None) if new_id is None else torch.from_numpy(np.flatnonzero(new_id >= 0))
    embedding.data[rows] = weights[name].cpu()
    target.load_state_dict({key: value for key, value in weights.items() if key != name}, strict=False)
