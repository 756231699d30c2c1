"""Contract suites: what every member of a family must do; its test file inherits the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.settings import ClipSpec, FeatureSpec
from tuner.models import Classifier, build_network
from tuner.models.memory import training_bytes
from tuner.training.bundle import Bundle, load_bundle, save_bundle
from tuner.training.recipe import Crops

NUM_LABELS = 3


class ModelContract:
    """Every row of the model table. A subclass gives fixtures.

    ``name`` and ``parameters`` say which network. ``feature`` and ``shapes`` say what it takes:
    a front end, and sizes [f, m] of its clips, the first of which serves where one is enough.
    """

    learns_by_gradient = True

    @pytest.fixture
    def name(self) -> str:
        raise pytest.UsageError("a subclass names the model")

    @pytest.fixture
    def parameters(self) -> dict:
        return {}

    @pytest.fixture
    def feature(self) -> FeatureSpec:
        return FeatureSpec(n_mels=64)

    @pytest.fixture
    def shapes(self) -> list[tuple[int, int]]:
        return [(64, 40), (64, 130), (64, 33), (40, 7)]

    @pytest.fixture
    def network(self, name, parameters):
        torch.manual_seed(0)
        return build_network(name, NUM_LABELS, parameters)

    def test_one_channel_in_logits_out(self, network, shapes) -> None:
        network.eval()
        for shape in shapes:
            assert network(torch.randn(2, 1, *shape)).shape == (2, NUM_LABELS), shape

    def test_what_learns_gets_a_gradient_and_nothing_else(self, network, shapes) -> None:
        network.train()
        with torch.no_grad():
            # some networks start with norms at zero, which hides what is before them
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        logits = network(torch.randn(4, 1, *shapes[0]))
        assert logits.requires_grad == self.learns_by_gradient
        if self.learns_by_gradient:
            logits.square().sum().backward()
        got = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert got == {n for n, p in network.named_parameters() if p.requires_grad}
        assert bool(got) == self.learns_by_gradient

    def test_evaluation_is_deterministic_and_independent_of_the_batch(
        self, network, shapes
    ) -> None:
        network.eval()
        x = torch.randn(3, 1, *shapes[0])
        together, again = network(x), network(x)
        assert torch.equal(together, again)
        torch.testing.assert_close(network(x[1:2])[0], together[1], atol=1e-5, rtol=1e-4)

    def test_body_and_head_are_all(self, network) -> None:
        assert {n for n, _ in network.named_children()} == {"body", "head"}
        assert {n.split(".", 1)[0] for n in network.state_dict()} <= {"body", "head"}

    def test_saved_and_loaded_bit_for_bit(
        self, network, name, parameters, feature, shapes, tmp_path: Path
    ) -> None:
        rows, frames = shapes[0]
        mean, std = np.full(rows, -30, np.float32), np.full(rows, 12, np.float32)
        classifier = Classifier(network, mean, std)
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = {"name": name, **parameters}
        crops = Crops()
        bundle = Bundle(("a", "b", "c"), ClipSpec(), feature, crops, model)
        save_bundle(tmp_path, bundle, classifier.state_dict())
        loaded_bundle, loaded = load_bundle(tmp_path)
        assert loaded_bundle == bundle
        x = torch.randn(2, rows, frames) * 10 - 30
        classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        assert torch.equal(loaded(x), classifier.eval()(x))

    def test_exports_with_a_free_batch_size(self, network, shapes) -> None:
        example = torch.randn(2, 1, *shapes[0])
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},))
        for clips in (1, 5):
            x = torch.randn(clips, 1, *shapes[0])
            torch.testing.assert_close(program.module()(x), network(x), atol=1e-5, rtol=1e-4)

    def test_memory_grows_with_the_batch_and_nothing_else_does(self, network, shapes) -> None:
        state = {k: v.clone() for k, v in network.state_dict().items()}
        small, large = (training_bytes(network, (1, *shapes[0]), clips) for clips in (2, 4))
        assert small.weights == sum(v.nbytes for v in state.values())
        learning = sum(p.nbytes for p in network.parameters() if p.requires_grad)
        assert (small.gradients, small.optimizer) == (learning, 2 * learning)
        assert bool(learning) == self.learns_by_gradient
        rest = (small.weights, small.gradients, small.optimizer)
        assert rest == (large.weights, large.gradients, large.optimizer)
        batch = 2 * shapes[0][0] * shapes[0][1] * 4  # bytes of two clips more
        assert small.activations + batch <= large.activations <= 2 * small.activations
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
