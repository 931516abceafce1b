"""What a published folder holds beside the model: these files, copied as they are. They know transformers alone."""
