"""Network parts that several trainees share. Their sources count into the hash of every model that uses them."""
