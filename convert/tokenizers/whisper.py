"""The tokenizer of a Whisper: texts are on one side alone, sound on the other."""

from __future__ import annotations

from convert.tokenizers.folder import Folder
from training_recipe.sound.features import FRAMES
from training_recipe.sound.sound_files import SoundFiles
from training_recipe.speech.vocabulary import SpeechVocabulary
from transformer_spec import UserError


def read_whisper(folder: Folder) -> tuple[SoundFiles, SpeechVocabulary]:
    config = folder.config
    if 2 * config.max_source_length != FRAMES:
        seconds = f"{config.max_source_length / 50:g} s"
        raise UserError(f"the model hears windows of {seconds}; recordings are cut every 30 s here")
    heard = SoundFiles(config.feature_dim, config.max_source_length)
    return heard, SpeechVocabulary.load(folder.path, config.target_vocab_size)
