"""The keys of Hugging Face config files: which say nothing about the model, which no class reads.

Taken from ``to_dict()`` of the four classes in transformers 4.57 and 5.23, and from what versions
before them left in published files.
"""

from typing import Any

# Their names of our activations, the one that is written first; approximations of an
# approximation ("gelu_fast", "gelu_10") are not among them.
ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "relu": ("relu",),
    "gelu": ("gelu", "gelu_python"),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"),
    "gelu_sigmoid": ("quick_gelu",),
    "silu": ("silu", "swish"),
    "identity": ("linear",),
}
OURS = {theirs: ours for ours, names in ACTIVATIONS.items() for theirs in names}

# Keys that say nothing about the model: bookkeeping, output format, heads of other tasks,
# initialisation, and how text is generated.
BOOKKEEPING = """
    model_type _name_or_path _commit_hash name_or_path architectures auto_map author kobart_version
    transformers_version dtype torch_dtype finetuning_task task_specific_params problem_type
    tokenizer_class id2label label2id num_labels _num_labels classif_dropout classifier_dropout
    init_std return_dict use_return_dict output_attentions output_hidden_states output_past
    use_cache torchscript use_bfloat16 tf_legacy_loss xla_device chunk_size_feed_forward
    gradient_checkpointing attn_implementation _attn_implementation _attn_implementation_internal
    _attn_implementation_autoset _from_model_config save_step total_flos replacing_rate
    student_encoder_layers student_decoder_layers
"""
GENERATION = """
    max_length min_length max_new_tokens min_new_tokens do_sample early_stopping max_time
    num_beams num_beam_groups diversity_penalty temperature top_k top_p min_p typical_p
    epsilon_cutoff eta_cutoff penalty_alpha guidance_scale repetition_penalty length_penalty
    encoder_repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    force_words_ids constraints num_return_sequences output_scores output_logits
    return_dict_in_generate forced_bos_token_id forced_eos_token_id force_bos_token_to_be_generated
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    renormalize_logits prefix sep_token_id
"""
# What people write in beside it: which text the model was made for.
TEXTS = """
    source_lang target_lang src_lang tgt_lang lang langs language languages language_pair task
    tokenizer_max_length max_source_length max_target_length vocab_file source_spm target_spm
"""
HARMLESS = frozenset((BOOKKEEPING + GENERATION + TEXTS).split())

# A key that says that the weights are something else, and the only values that it may have.
FIXED: dict[str, tuple[Any, ...]] = {
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}
# Keys that sound as if they said what is computed and that the classes do not read (tests compare
# logits): what the classes do.
UNREAD: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "tie_encoder_decoder": (False,),
    "do_blenderbot_90_layernorm": (False,),
    "layer_norm_eps": (1e-5,),
    "layer_norm_epsilon": (1e-5,),
    "layernorm_epsilon": (1e-5,),
    # final_logits_bias is added whatever this key says
    "add_bias_logits": (True, False),
}
DEFAULTS: dict[str, Any] = {
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "scale_embedding": False,
    "bos_token_id": 0,
    "tie_word_embeddings": True,
}
