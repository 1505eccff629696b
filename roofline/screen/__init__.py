"""What the commands of `roofline` print: tables for people and one JSON document for scripts."""
