"""Vision backbones from folders of the Hugging Face hub."""
