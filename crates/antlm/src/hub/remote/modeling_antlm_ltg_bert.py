# LTG-BERT as antlm trains it: configuration and models for transformers (4.51 to 5.x), in one readable file.
#
# LTG-BERT (Samuel et al. 2023, "Trained on 100 million words and still in shape") is an encoder with extra norms, GEGLU
# and relative positions in disentangled attention. antlm trains it to be read both ways, so there are four classes:
#   AutoModelForCausalLM   each token from those on its left; output k predicts token k + 1
#   AutoModelForMaskedLM   both sides; output k is about token k (mlm) or token k + 1 (mntp), see
#                          config.antlm_masked_alignment: logits are never shifted, labels are lined up accordingly
#   AutoModel              hidden states; both sides if config.antlm_bidirectional, else from the left
#   AutoModelForSequenceClassification   as AutoModel, with a new head on the first token (both sides) or the last one
# attention_mask is [B, T] (1 = a token, 0 = padding, on either side) or [B, T, T] (row i sees the columns with 1; padding
# not even itself).
# Shapes in comments: B sequences, T tokens, d width, H heads, h = d / H, V tokens of the vocabulary.

import math

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, MaskedLMOutput, SequenceClassifierOutput

# Distances up to 16 have a row each; beyond, a row ends where the next of these begins. The last one takes the rest.
EDGES = (17, 21, 26, 32, 41, 51, 64, 81, 102, 128, 162, 203, 256, 322, 406)
MIDDLE = 31
RELATIVE_ROWS = 2 * MIDDLE + 1


class AntlmLtgBertConfig(PretrainedConfig):
    model_type = "antlm_ltg_bert"

    def __init__(
        self,
        vocab_size=16384,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1024,
        max_position_embeddings=512,
        layer_norm_eps=1e-7,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        antlm_masked_alignment="same-position",
        antlm_bidirectional=True,
        **kwargs,
    ):
        for key, value in {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "use_cache": False}.items():
            kwargs.setdefault(key, value)
        kwargs["tie_word_embeddings"] = True  # always: the file holds one matrix
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_eps = layer_norm_eps
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.antlm_masked_alignment = antlm_masked_alignment
        self.antlm_bidirectional = antlm_bidirectional


def relative_rows(length, device):
    """Which row of the relative embedding stands for query i minus key j: [T, T], 0 to 62."""
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    far = torch.bucketize(distance.abs(), torch.tensor(EDGES, device=device), right=True)
    bucket = torch.where(distance.abs() <= 16, distance.abs(), 16 + far)
    return MIDDLE + distance.sign() * bucket


def blocked(attention_mask, causal, batch, length, device):
    """What may not be seen: [B, T, T] or [1, T, T], True where row i must not see column j; None if all is seen."""
    unseen = None
    if attention_mask is not None:
        if attention_mask.dim() not in (2, 3) or attention_mask.shape[-1] != length:
            raise ValueError(f"attention_mask must be [B, {length}] or [B, {length}, {length}], not "
                             f"{list(attention_mask.shape)}")
        unseen = attention_mask.to(device) == 0
        if unseen.dim() == 2:
            unseen = unseen[:, None, :].expand(batch, length, length)
    if causal:
        future = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)[None]
        unseen = future if unseen is None else unseen | future
    return unseen


class Embedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.word_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, elementwise_affine=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.relative_embedding = nn.Parameter(torch.empty(RELATIVE_ROWS, config.hidden_size))
        self.relative_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids, inputs_embeds):
        words = self.word_embedding(input_ids) if inputs_embeds is None else inputs_embeds
        return self.dropout(self.word_norm(words)), self.relative_layer_norm(self.relative_embedding)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config.hidden_size
        self.heads = config.num_attention_heads
        self.scale = 1.0 / math.sqrt(3 * (d // self.heads))
        self.pre_norm = nn.LayerNorm(d, config.layer_norm_eps, elementwise_affine=False)
        self.in_proj_qk = nn.Linear(d, 2 * d)
        self.in_proj_v = nn.Linear(d, d)
        self.out_proj = nn.Linear(d, d)
        self.post_layer_norm = nn.LayerNorm(d, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def split(self, x):
        """[..., T, d] -> [..., H, T, h]"""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def forward(self, x, relative, rows, unseen):
        y = self.pre_norm(x)
        query, key = (self.split(part) for part in self.in_proj_qk(y).chunk(2, dim=-1))  # [B, H, T, h]
        value = self.split(self.in_proj_v(y))
        # The same projection makes queries and keys of the relative positions.
        query_pos, key_pos = (self.split(part) for part in self.in_proj_qk(self.dropout(relative)).chunk(2, dim=-1))
        shape = (*query.shape[:2], *rows.shape)
        scores = query @ key.transpose(-1, -2)  # [B, H, T, T]
        scores = scores + (query @ key_pos.transpose(-1, -2)).gather(-1, rows.expand(shape))
        # Of key j, the query of the position row(i - j): gathered as [j, i], then turned.
        scores = scores + (key @ query_pos.transpose(-1, -2)).gather(-1, rows.T.expand(shape)).transpose(-1, -2)
        scores = scores * self.scale
        if unseen is None:
            probs = scores.softmax(-1)
        else:
            # A row that sees nothing has probabilities of zero, and finite gradients.
            unseen = unseen[:, None]
            probs = scores.masked_fill(unseen, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(unseen, 0.0)
        out = (self.dropout(probs) @ value).transpose(1, 2).flatten(2)  # [B, T, d]
        return self.dropout(self.post_layer_norm(self.out_proj(out))), probs


class GeGlu(nn.Module):
    def forward(self, x):
        x, gate = x.chunk(2, dim=-1)
        return x * F.gelu(gate, approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        d, wide, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.mlp = nn.Sequential(
            nn.LayerNorm(d, eps, elementwise_affine=False),
            nn.Linear(d, 2 * wide, bias=False),
            GeGlu(),
            nn.LayerNorm(wide, eps, elementwise_affine=False),
            nn.Linear(wide, d, bias=False),
            nn.Dropout(config.hidden_dropout_prob),
        )

    def forward(self, x):
        return self.mlp(x)


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config)
        self.mlp = FeedForward(config)


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        for number, layer in enumerate(self.layers):
            # Deeper layers' feed-forward matrices begin smaller.
            layer.mlp.mlp[1].init_scale = layer.mlp.mlp[4].init_scale = math.sqrt(1 / (2 * (1 + number)))


class Head(nn.Module):
    def __init__(self, config, outputs):
        super().__init__()
        d, eps = config.hidden_size, config.layer_norm_eps
        self.nonlinearity = nn.Sequential(
            nn.LayerNorm(d, eps, elementwise_affine=False),
            nn.Linear(d, d),
            nn.GELU(),
            nn.LayerNorm(d, eps, elementwise_affine=False),
            nn.Dropout(config.hidden_dropout_prob),
            nn.Linear(d, outputs),
        )

    def forward(self, x):
        return self.nonlinearity(x)


class AntlmLtgBertPreTrainedModel(PreTrainedModel):
    config_class = AntlmLtgBertConfig
    base_model_prefix = "antlm_ltg_bert"  # no tensor has it: the models share their tensors' names
    accepts_loss_kwargs = False  # losses are means over the batch; the Trainer divides by its accumulation steps

    def _init_weights(self, module):
        """As in LTG-BERT. Never touches what was loaded: transformers 5 marks such parameters."""
        def fresh(parameter):
            return parameter is not None and not getattr(parameter, "_is_hf_initialized", False)

        def matrix(parameter, scale=1.0):
            std = scale * math.sqrt(2 / (5 * self.config.hidden_size))
            if fresh(parameter):
                nn.init.trunc_normal_(parameter, mean=0.0, std=std, a=-2 * std, b=2 * std)

        if isinstance(module, nn.Linear):
            matrix(module.weight, getattr(module, "init_scale", 1.0))
            if fresh(module.bias):
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            if fresh(module.weight):
                nn.init.ones_(module.weight)
            if fresh(module.bias):
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            matrix(module.weight)
        elif isinstance(module, Embedding):
            matrix(module.relative_embedding)

    def get_input_embeddings(self):
        return self.embedding.word_embedding

    def set_input_embeddings(self, value):
        self.embedding.word_embedding = value

    def build(self, config):
        self.embedding = Embedding(config)
        self.transformer = Transformer(config)

    def encode(self, causal, input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions):
        """The stack without a head: last hidden state [B, T, d], all hidden states, all attention weights."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x, relative = self.embedding(input_ids, inputs_embeds)
        batch, length = x.shape[:2]
        rows = relative_rows(length, x.device)
        unseen = blocked(attention_mask, causal, batch, length, x.device)
        states, weights = (x,), ()
        for layer in self.transformer.layers:
            change, probs = layer.attention(x, relative, rows, unseen)
            x = x + change
            x = x + layer.mlp(x)
            states, weights = (*states, x), (*weights, probs)
        if output_hidden_states is None:
            output_hidden_states = getattr(self.config, "output_hidden_states", False)
        if output_attentions is None:
            output_attentions = getattr(self.config, "output_attentions", False)
        return x, states if output_hidden_states else None, weights if output_attentions else None


def finish(output, return_dict, config):
    return output if (getattr(config, "return_dict", True) if return_dict is None else return_dict) else output.to_tuple()


class AntlmLtgBertModel(AntlmLtgBertPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"^classifier\.", r"^head\."]

    def __init__(self, config):
        super().__init__(config)
        self.build(config)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, output_hidden_states=None,
                output_attentions=None, return_dict=None, **kwargs):
        causal = not self.config.antlm_bidirectional
        x, states, weights = self.encode(
            causal, input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions)
        return finish(BaseModelOutput(last_hidden_state=x, hidden_states=states, attentions=weights), return_dict,
                      self.config)


class AntlmLtgBertLMHeadModel(AntlmLtgBertPreTrainedModel):
    """What both language models share: the head, whose matrix is that of the embedding."""

    _keys_to_ignore_on_load_unexpected = [r"^head\."]
    # transformers 5 wants to know what is tied to what, 4.x only which of the two.
    _tied_weights_keys = (
        {"classifier.nonlinearity.5.weight": "embedding.word_embedding.weight"}
        if int(transformers.__version__.split(".")[0]) >= 5
        else ["classifier.nonlinearity.5.weight"]
    )

    def __init__(self, config):
        super().__init__(config)
        self.build(config)
        self.classifier = Head(config, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self):
        return self.classifier.nonlinearity[5]

    def set_output_embeddings(self, value):
        self.classifier.nonlinearity[5] = value


def shifted_loss(logits, labels):
    """Mean -log p of labels k + 1 at outputs k; -100 is not asked for."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten().to(logits.device))


class AntlmLtgBertForCausalLM(AntlmLtgBertLMHeadModel, GenerationMixin):
    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        # There is no cache: every step reads the whole text.
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, output_hidden_states=None,
                output_attentions=None, return_dict=None, **kwargs):
        x, states, weights = self.encode(
            True, input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions)
        logits = self.classifier(x)  # [B, T, V]
        loss = None if labels is None else shifted_loss(logits, labels)
        return finish(CausalLMOutput(loss=loss, logits=logits, hidden_states=states, attentions=weights), return_dict,
                      self.config)


class AntlmLtgBertForMaskedLM(AntlmLtgBertLMHeadModel):
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, output_hidden_states=None,
                output_attentions=None, return_dict=None, **kwargs):
        x, states, weights = self.encode(
            False, input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions)
        logits = self.classifier(x)  # [B, T, V]
        loss = None
        if labels is not None and self.config.antlm_masked_alignment == "next-token":
            loss = shifted_loss(logits, labels)
        elif labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten().to(logits.device))
        return finish(MaskedLMOutput(loss=loss, logits=logits, hidden_states=states, attentions=weights), return_dict,
                      self.config)


def chosen(x, attention_mask, first):
    """The vector of the first token, or of the last one, wherever the padding is: [B, T, d] -> [B, d]."""
    length = x.shape[1]
    if attention_mask is None:
        return x[:, 0 if first else -1]
    if attention_mask.dim() == 3:
        attention_mask = attention_mask.diagonal(dim1=1, dim2=2)  # a token sees itself, padding does not
    place = torch.arange(length, device=x.device)
    tokens = attention_mask.to(x.device) != 0
    which = torch.where(tokens, place, length).amin(-1) if first else torch.where(tokens, place, -1).amax(-1)
    return x[torch.arange(x.shape[0], device=x.device), which.clamp(0, length - 1)]


def label_loss(logits, labels, config):
    """Of sequence classification, as transformers chooses it: by config.problem_type, or by the labels' type."""
    labels = labels.to(logits.device)
    if config.problem_type is None:
        whole = labels.dtype in (torch.long, torch.int)
        config.problem_type = ("regression" if config.num_labels == 1 else "single_label_classification" if whole
                               else "multi_label_classification")
    if config.problem_type == "regression":
        return F.mse_loss(logits.squeeze(-1) if config.num_labels == 1 else logits, labels.to(logits.dtype))
    if config.problem_type == "single_label_classification":
        return F.cross_entropy(logits.float(), labels.flatten())
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


class AntlmLtgBertForSequenceClassification(AntlmLtgBertPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.build(config)
        self.head = Head(config, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, output_hidden_states=None,
                output_attentions=None, return_dict=None, **kwargs):
        both = self.config.antlm_bidirectional
        x, states, weights = self.encode(
            not both, input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions)
        logits = self.head(chosen(x, attention_mask, first=both))  # [B, labels]
        loss = None if labels is None else label_loss(logits, labels, self.config)
        return finish(SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=states, attentions=weights),
                      return_dict, self.config)
