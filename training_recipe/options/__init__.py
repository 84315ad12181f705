"""What a user may ask of training: settings declared once, presets, recipe files, flags."""
