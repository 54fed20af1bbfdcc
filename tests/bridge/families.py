"""Tiny models of decoder families of transformers, built from their configurations; no network."""

import torch

SIZES = {
    "vocab_size": 29,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.3,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 8}
OLD = {"vocab_size": 29, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 12, "initializer_range": 0.3}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
LATENT = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "moe_intermediate_size": 12,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "topk_group": 1,
}
FALCON = {k: v for k, v in SIZES.items() if k not in ("intermediate_size", "max_position_embeddings")}
NEO = {"vocab_size": 29, "hidden_size": 16, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 12}
NEO |= {"initializer_range": 0.3}
OPT = {**SIZES, "ffn_dim": 24, "pad_token_id": 1}

# Name → class of the configuration, and its settings.
FAMILIES = {
    "GPT-2": ("GPT2Config", OLD),
    "GPT-NeoX": ("GPTNeoXConfig", SIZES),
    "OLMo": ("OlmoConfig", {**SIZES, "clip_qkv": 0.5}),
    "OLMo 2": ("Olmo2Config", GROUPED),
    "Llama": ("LlamaConfig", GROUPED),
    "Llama, tied": (
        "LlamaConfig",
        {**GROUPED, "tie_word_embeddings": True, "mlp_bias": True, "attention_bias": True},
    ),
    "Mistral": ("MistralConfig", {**GROUPED, "sliding_window": 4}),
    "Mixtral": ("MixtralConfig", {**GROUPED, "num_local_experts": 4}),
    "Qwen2": ("Qwen2Config", GROUPED),
    "Qwen2-MoE": ("Qwen2MoeConfig", {**GROUPED, **MOE, "shared_expert_intermediate_size": 20}),
    "Qwen3": ("Qwen3Config", WIDE),
    "Qwen3-MoE": ("Qwen3MoeConfig", {**WIDE, **MOE}),
    "Gemma": ("GemmaConfig", WIDE),
    "Gemma 2": ("Gemma2Config", {**WIDE, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0}),
    "Gemma 3": ("Gemma3TextConfig", WIDE),
    "GPT-J": ("GPTJConfig", {**OLD, "rotary_dim": 2}),
    "GPT-Neo": ("GPTNeoConfig", {**NEO, "attention_types": [[["global", "local"], 1]]}),
    "OPT": ("OPTConfig", OPT),
    "OPT, projected": ("OPTConfig", {**OPT, "word_embed_proj_dim": 8, "do_layer_norm_before": False}),
    "Phi": ("PhiConfig", SIZES),
    "Phi-3": ("Phi3Config", GROUPED),
    "Falcon": ("FalconConfig", FALCON),
    "Falcon, grouped": ("FalconConfig", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "Falcon, by head": ("FalconConfig", {**FALCON, "multi_query": False, "alibi": True, "bias": True}),
    "BLOOM": (
        "BloomConfig",
        {"vocab_size": 29, "hidden_size": 16, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
    ),
    "MPT": ("MptConfig", {"vocab_size": 29, "d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 12}),
    "StableLM": ("StableLmConfig", GROUPED),
    "Starcoder2": ("Starcoder2Config", GROUPED),
    "Starcoder": ("GPTBigCodeConfig", OLD),
    "Starcoder, by head": ("GPTBigCodeConfig", {**OLD, "multi_query": False}),
    "OLMoE": ("OlmoeConfig", {**GROUPED, **{k: MOE[k] for k in ("num_experts", "num_experts_per_tok")}}),
    "DeepSeek-V2": ("DeepseekV2Config", {**SIZES, **LATENT, "n_group": 1}),
    "DeepSeek-V3": ("DeepseekV3Config", {**SIZES, **LATENT, "n_group": 2}),
    "Granite": ("GraniteConfig", {**GROUPED, "logits_scaling": 4.0, "embedding_multiplier": 3.0}),
    "Cohere": ("CohereConfig", {**GROUPED, "logit_scale": 0.25}),
    "Granite-MoE": ("GraniteMoeConfig", {**GROUPED, "num_local_experts": 4}),
    "nanochat": ("NanoChatConfig", {**GROUPED, "final_logit_softcapping": 3.0}),
    "gpt-oss": ("GptOssConfig", {**WIDE, "num_local_experts": 4}),
    "Llama 4": ("Llama4TextConfig", {**WIDE, "num_local_experts": 4, "intermediate_size_mlp": 24}),
    "SmolLM3": ("SmolLM3Config", GROUPED),
    "GLM": ("GlmConfig", WIDE),
}


def model_of(family, seed=3, **changes):
    """Return a model in which no weight is zero and no gain is one, which would hide a mistake in them."""
    import transformers

    name, settings = FAMILIES[family]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, name)(**{**settings, **changes})
    ).eval()
    for p in model.parameters():
        if p.ndim == 1 or float(p.detach().abs().max()) == 0:
            p.data += 0.1 * torch.randn_like(p)
    return model
