# Llama as antlm trains it, read from both sides: models for transformers (4.51 to 5.x) that know only one way.
#
# AutoModelForCausalLM needs nothing of this: an export of antlm is a plain LlamaForCausalLM. These classes are for
#   AutoModelForMaskedLM   both sides; output k is about token k (mlm) or token k + 1 (mntp), see
#                          config.antlm_masked_alignment: logits are never shifted, labels are lined up accordingly
#   AutoModel              hidden states; both sides if config.antlm_bidirectional, else from the left
#   AutoModelForSequenceClassification   as AutoModel, with a new head on the first token (both sides) or the last one
# attention_mask is [B, T] (1 = a token, 0 = padding, on either side) or [B, T, T] (row i sees the columns with 1; padding
# not even itself).
# Since transformers 5.2 `from_pretrained(…, is_causal=False)` makes LlamaForCausalLM read both sides, too.
# Shapes in comments: B sequences, T tokens, d width, V tokens of the vocabulary.

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput, SequenceClassifierOutput


def added_mask(attention_mask, causal, batch, length, like):
    """What is added to the attention's scores, [B, 1, T, T]: 0 where row i sees column j, the lowest number elsewhere."""
    seen = torch.ones(batch, length, length, dtype=torch.bool, device=like.device)
    if attention_mask is not None:
        if attention_mask.dim() not in (2, 3) or attention_mask.shape[-1] != length:
            raise ValueError(f"attention_mask must be [B, {length}] or [B, {length}, {length}], not "
                             f"{list(attention_mask.shape)}")
        tokens = attention_mask.to(like.device) != 0
        seen = seen & (tokens[:, None, :] if tokens.dim() == 2 else tokens)
    if causal:
        seen = seen.tril()
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill(~seen, torch.finfo(like.dtype).min)[:, None]


class AntlmLlamaModel(LlamaModel):
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^head\."]
    _supports_flash_attn = _supports_flash_attn_2 = _supports_flex_attn = False  # they take no mask of this kind

    def __init__(self, config):
        super().__init__(config)
        # None for a Llama that is not antlm's: transformers 4.x gives this class to every one that is loaded later.
        self.bidirectional = getattr(config, "antlm_bidirectional", None)

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, position_ids=None, **kwargs):
        if self.bidirectional is None:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds,
                                   position_ids=position_ids, **kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        kwargs["use_cache"] = False
        batch, length = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        mask = added_mask(attention_mask, not self.bidirectional, batch, length, self.embed_tokens.weight)
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=mask,
                               position_ids=position_ids, **kwargs)


def finish(output, return_dict, config):
    return output if (getattr(config, "return_dict", True) if return_dict is None else return_dict) else output.to_tuple()


class AntlmLlamaForMaskedLM(LlamaPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"^head\."]
    _supports_flash_attn = _supports_flash_attn_2 = _supports_flex_attn = False
    accepts_loss_kwargs = False  # losses are means over the batch; the Trainer divides by its accumulation steps
    # transformers 5 wants to know what is tied to what, 4.x only which of the two (where config.tie_word_embeddings).
    _tied_weights_keys = (
        {"lm_head.weight": "model.embed_tokens.weight"}
        if int(transformers.__version__.split(".")[0]) >= 5
        else ["lm_head.weight"]
    )

    def __init__(self, config):
        super().__init__(config)
        self.model = AntlmLlamaModel(config)
        self.model.bidirectional = True
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, position_ids=None, labels=None,
                return_dict=None, **kwargs):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds,
                         position_ids=position_ids, **kwargs)
        logits = self.lm_head(out.last_hidden_state)  # [B, T, V]
        loss = None
        if labels is not None:
            labels = labels.to(logits.device)
            if self.config.antlm_masked_alignment == "next-token":
                loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
            else:
                loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return finish(MaskedLMOutput(loss=loss, logits=logits, hidden_states=out.hidden_states,
                                     attentions=out.attentions), return_dict, self.config)


class Head(nn.Module):
    """Norm, layer, norm, layer; the norms have no parameters."""

    def __init__(self, config):
        super().__init__()
        d, eps = config.hidden_size, config.rms_norm_eps
        self.nonlinearity = nn.Sequential(
            nn.LayerNorm(d, eps, elementwise_affine=False),
            nn.Linear(d, d),
            nn.GELU(),
            nn.LayerNorm(d, eps, elementwise_affine=False),
            nn.Dropout(0.1),
            nn.Linear(d, config.num_labels),
        )

    def forward(self, x):
        return self.nonlinearity(x)


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


class AntlmLlamaForSequenceClassification(LlamaPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]
    _supports_flash_attn = _supports_flash_attn_2 = _supports_flex_attn = False
    accepts_loss_kwargs = False

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = AntlmLlamaModel(config)
        self.head = Head(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, position_ids=None, labels=None,
                return_dict=None, **kwargs):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds,
                         position_ids=position_ids, **kwargs)
        logits = self.head(chosen(out.last_hidden_state, attention_mask, first=bool(self.model.bidirectional)))
        loss = None if labels is None else label_loss(logits, labels, self.config)
        return finish(SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=out.hidden_states,
                                               attentions=out.attentions), return_dict, self.config)


# So that save_pretrained takes this file along: the configuration is transformers' own and does not ask for it.
AntlmLlamaModel.register_for_auto_class("AutoModel")
AntlmLlamaForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
AntlmLlamaForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
