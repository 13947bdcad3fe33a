"""What a run states about itself, for machines and for people."""
