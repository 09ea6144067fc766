"""data2vec for speech, images and text: the learning, without pipelines, codecs or configuration files."""
