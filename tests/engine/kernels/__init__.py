"""Each operation against its formula; laws of drawing."""
