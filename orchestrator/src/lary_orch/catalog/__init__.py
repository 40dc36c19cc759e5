"""What there is: images, datasets and protocols, and the rows of a dataset on this disk."""
