"""Contract suites: what every member of a family must do; its test file inherits the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.spec import ClipSpec, FeatureSpec
from tuner.checkpoint import Bundle, load_bundle, save_bundle
from tuner.models import Classifier, build_network

NUM_LABELS = 3


class ModelContract:
    """Every row of the model table. A subclass gives ``name`` and ``parameters`` (fixtures)."""

    @pytest.fixture
    def name(self) -> str:
        raise pytest.UsageError("a subclass names the model")

    @pytest.fixture
    def parameters(self) -> dict:
        return {}

    @pytest.fixture
    def network(self, name, parameters):
        torch.manual_seed(0)
        return build_network(name, NUM_LABELS, parameters)

    @pytest.mark.parametrize("shape", [(64, 130), (64, 33), (40, 7)])
    def test_one_channel_in_logits_out(self, network, shape) -> None:
        assert network.eval()(torch.randn(2, 1, *shape)).shape == (2, NUM_LABELS)

    def test_every_parameter_gets_a_gradient(self, network) -> None:
        network.train()
        with (
            torch.no_grad()
        ):  # some networks start with norms at zero, which hides what is before them
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        loss = network(torch.randn(4, 1, 64, 40)).square().sum()
        loss.backward()
        without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_evaluation_is_deterministic_and_independent_of_the_batch(self, network) -> None:
        network.eval()
        x = torch.randn(3, 1, 64, 40)
        together, again = network(x), network(x)
        assert torch.equal(together, again)
        torch.testing.assert_close(network(x[1:2])[0], together[1], atol=1e-5, rtol=1e-4)

    def test_body_and_head_are_all(self, network) -> None:
        parts = {n.split(".", 1)[0] for n, _ in network.named_parameters()}
        assert parts == {"body", "head"}

    def test_saved_and_loaded_bit_for_bit(self, network, name, parameters, tmp_path: Path) -> None:
        feature = FeatureSpec(n_mels=64)
        mean, std = np.full(64, -30, np.float32), np.full(64, 12, np.float32)
        classifier = Classifier(network, mean, std)
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        bundle = Bundle(("a", "b", "c"), ClipSpec(), feature, None, {"name": name, **parameters})
        save_bundle(tmp_path, bundle, classifier.state_dict())
        loaded_bundle, loaded = load_bundle(tmp_path)
        assert loaded_bundle == bundle
        x = torch.randn(2, 64, 40) * 10 - 30
        classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        assert torch.equal(loaded(x), classifier.eval()(x))

    def test_exports_with_a_free_batch_size(self, network) -> None:
        example = torch.randn(2, 1, 64, 40)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},))
        x = torch.randn(5, 1, 64, 40)
        torch.testing.assert_close(program.module()(x), network(x), atol=1e-5, rtol=1e-4)
