"""Use of trained models on audio: on the command line, behind MLflow's server, on a cluster."""
