"""Speed and memory, beside a ceiling measured in the same run. JSON out."""
