"""The tokenizer of a Whisper: texts are on one side alone, sound on the other."""

from __future__ import annotations

from convert.tokenizers.folder import Folder
from convert.tokenizers.pairs import Pair
from training_recipe.speech.sound_files import SoundFiles
from training_recipe.speech.vocabulary import SpeechVocabulary


def read_whisper(folder: Folder) -> Pair:
    config = folder.config
    heard = SoundFiles(config.feature_dim, config.max_source_length)
    return heard, SpeechVocabulary.load(folder.path, config.target_vocab_size)
