"""What a model hears: the front end of a recording, and its known slips."""
