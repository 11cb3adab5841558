"""What a backend must prove before its speed is believed. Each leaves its numbers in the record."""
