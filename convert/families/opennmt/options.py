"""The options that OpenNMT-py keeps in a checkpoint, by what they do to the model.

The names are those of OpenNMT-py 3.5's training command and of its 2.3 and 3.0 predecessors, whose
checkpoints carry them on. What is in none of these sets is not known and refused.
"""

from __future__ import annotations

from typing import Any

# One of these values alone can be expressed; the first is what OpenNMT-py takes where it is absent.
CHECKED: dict[str, tuple[Any, ...]] = {
    "encoder_type": ("transformer",),
    "decoder_type": ("transformer",),
    "model_task": ("seq2seq", None),
    "data_task": ("seq2seq", None),
    "model_type": ("text",),
    "data_type": ("text",),
    "self_attn_type": ("scaled-dot", "scaled-dot-flash"),
    "max_relative_positions": (0,),
    "relative_positions_buckets": (0,),
    "multiquery": (False,),
    "sliding_window": (0,),
    "layer_norm": ("standard",),
    "parallel_residual": (False,),
    "num_experts": (0,),
    "generator_function": ("softmax",),
    "copy_attn": (False,),
    "coverage_attn": (False,),
    "context_gate": (None,),
    "n_src_feats": (0, None),
    "src_feats_vocab": (None, "", {}),
    "lora_layers": ([],),
    "lora_embedding": (False,),
    "quant_layers": ([],),
    "brnn": (None, False),
}

# They shape the training of the weights and nothing else; said in one note.
TRAINING = frozenset(
    """
    accum_count accum_steps adagrad_accumulator_init adam_beta1 adam_beta2 alignment_heads
    alignment_layer apex_opt_level average_decay average_every batch_size batch_size_multiple
    batch_type decay_method decay_steps dropout_steps early_stopping early_stopping_criteria
    fix_word_vecs_dec fix_word_vecs_enc freeze_decoder freeze_encoder freeze_word_vecs_dec
    freeze_word_vecs_enc full_context_alignment label_smoothing lambda_align learning_rate
    learning_rate_decay lm_prior_lambda lm_prior_model lm_prior_tau loss_scale
    max_generator_batches max_grad_norm normalization optim start_decay_steps train_steps
    truncated_decoder warmup_steps zero_out_prompt_loss
    """.split()
)
OFF = (None, False, 0, "", "none", [], [0], [1])

# They say how text becomes tokens, which is not the model's matter but the user's: one note.
TEXT = frozenset("transforms _all_transform src_subword_model tgt_subword_model".split())

# Options of what is not there: recurrent, convolutional and graph models, copying, features,
# rotary positions, experts, low-rank and quantized layers. The switches above turn them on.
ABSENT = frozenset(
    """
    aan_useffn bidir_edges bridge bridge_extra_node cnn_kernel_width copy_attn_force
    copy_attn_type copy_loss_by_seqlength feat_merge feat_vec_exponent feat_vec_size
    global_attention global_attention_function group_size input_feed lambda_coverage lora_alpha
    lora_dropout lora_rank n_edge_types n_node n_steps num_experts_per_tok quant_type
    reuse_copy_attn rnn_type rotary_dim rotary_interleave rotary_theta shared_layer_norm
    src_feats_defaults src_ggnn_size state_dim w_bit
    """.split()
)

# Where data and results lie, how work is divided and reported, how text is cleaned.
ELSEWHERE = frozenset(
    """
    avg_tok_max avg_tok_min both_embeddings bucket_size bucket_size_increment bucket_size_init
    config data default_specials doc_length dump_fields dump_preds dump_samples dump_transforms
    embeddings_type epochs exp exp_host fuzzy_corpus_ratio fuzzy_threshold fuzzy_token
    fuzzymatch_max_length fuzzymatch_min_length gpt2_pretok gpu_backend gpu_ranks
    gpu_verbose_level gpuid insert_ratio isolated_tag keep_checkpoint langid learn_subwords
    learn_subwords_size local_rank log_file log_file_level mask_length mask_ratio master_ip
    master_port max_context max_tags model_dtype n_sample norm_numbers norm_quote_commas
    num_threads num_workers override_opts overwrite paired_etag paired_stag parallel_mode
    param_init param_init_glorot penn permute_sent_ratio poisson_lambda pool_factor
    post_remove_control_chars pre_replace_unicode_punct pre_word_vecs_dec pre_word_vecs_enc
    prefetch_factor prior_tokenization queue_size random_ratio replace_length report_every
    reset_optim response_patterns reversible_tokenization rotate_ratio same_char same_word
    save_checkpoint_steps save_config save_data save_format save_model scoring_debug scripts_nok
    scripts_ok seed share_vocab single_pass skip_empty_level src_delimiter src_embeddings
    src_eq_tgt src_lang src_onmttok_kwargs src_prefix src_seq_length src_seq_length_trunc
    src_spacy_language_model src_subword_alpha src_subword_nbest src_subword_type
    src_subword_vocab src_suffix src_term_stoken src_tgt_ratio src_vocab src_vocab_size
    src_vocab_threshold src_words_min_frequency switchout_temperature tags_corpus_ratio
    tags_dictionary_path tensorboard tensorboard_log_dir tensorboard_log_dir_dated
    term_corpus_ratio term_example_ratio term_source_delimiter termbase_path tgt_embeddings
    tgt_file_prefix tgt_lang tgt_onmttok_kwargs tgt_prefix tgt_seq_length tgt_seq_length_trunc
    tgt_spacy_language_model tgt_subword_alpha tgt_subword_nbest tgt_subword_type
    tgt_subword_vocab tgt_suffix tgt_term_etoken tgt_term_stoken tgt_vocab tgt_vocab_size
    tgt_vocab_threshold tgt_words_min_frequency timeout tm_delimiter tm_path
    tokendrop_temperature tokenmask_temperature train_eval_steps train_from train_metrics
    update_vocab upper_corpus_ratio use_ckpting valid_batch_size valid_metrics valid_steps
    verbose vocab_sample_queue_size vocab_size_multiple world_size
    """.split()
)
