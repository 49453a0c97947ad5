"""What every geometry and every scorer keeps. A test class subclasses the mixin and says how to build one.

class TestLorentz(GeometryContract):
    def build(self) -> Lorentz:
        return Lorentz(curv_init=0.5)
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Scorer

B1, B2, D, T = 5, 4, 6, 7


def rows(count: int, *, seed: int, scale: float = 0.7, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(count, D, generator=generator, dtype=torch.float64)).to(dtype)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, Tensor):
                self.numel = max(self.numel, made.numel())
        return result


class GeometryContract:
    """Conformance of a :class:`Geometry`."""

    def build(self) -> Geometry:
        raise NotImplementedError("a contract test builds its geometry")

    def embeddings(self, geometry: Geometry, count: int = B1, *, seed: int = 0) -> Tensor:
        return geometry.lift(rows(count, seed=seed)).detach()

    def rotation(self) -> Tensor:
        """A change of the coordinate frame, (D, D), that leaves the space as it is."""
        return torch.linalg.qr(rows(D, seed=3)).Q

    def over_factors(self, distances: Tensor) -> Tensor:
        """The distance in a product of spaces, of the distances of its factors: (..., F) -> (...)."""
        return distances.mean(-1)

    def test_lift_and_flatten_are_inverse(self) -> None:
        geometry = self.build().double()
        x = self.embeddings(geometry)
        torch.testing.assert_close(geometry.lift(geometry.flatten(x)), x, rtol=1e-12, atol=1e-12)

    def test_whether_any_vector_is_a_point_is_said(self) -> None:
        geometry, z = self.build().double(), rows(B1, seed=4, scale=10.0)
        stays = torch.allclose(geometry.lift(geometry.flatten(z)), z, rtol=1e-9, atol=1e-9)
        assert stays == geometry.any_vector_is_a_point

    def test_vectors_off_the_manifold_give_finite_numbers(self) -> None:
        """Rounding puts points there, and losses that project coordinates (Long-CLIP)."""
        geometry = self.build()
        z = rows(B1, seed=4, scale=100.0, dtype=torch.float32).requires_grad_()
        terms = [geometry.flatten(z), geometry.pairwise_similarity(z, z), geometry.ranking_similarity(z, z)]
        terms.append(geometry.space_components(z))
        cones = geometry.cones
        if cones is not None:
            terms += [cones.exterior_angle(z, z.roll(1, 0)), cones.pairwise_exterior_angle(z, z)]
            terms.append(cones.half_aperture(z))
        for term in terms:
            (grad,) = torch.autograd.grad(term.sum(), z)
            assert term.isfinite().all() and grad.isfinite().all()

    def test_lift_saturates_where_it_says(self) -> None:
        """max_radius, which tells an audit what is clipped; without one, lengths are kept."""
        geometry = self.build()
        if geometry.root(D) is None:
            return
        c = torch.ones(1) if geometry.curvature is None else geometry.curvature
        far = 1e3 * torch.nn.functional.normalize(
            rows(B1, seed=0, dtype=torch.float32).unflatten(-1, (len(c), -1)), dim=-1
        )
        flat = geometry.flatten(geometry.lift(far.flatten(1))).unflatten(-1, (len(c), -1))
        lengths = c.sqrt() * torch.linalg.vector_norm(flat, dim=-1)  # (B1, F)
        expected = 1e3 if geometry.max_radius is None else geometry.max_radius
        torch.testing.assert_close(lengths, torch.full_like(lengths, expected), rtol=1e-3, atol=0)

    def test_space_components_are_those_of_the_hyperboloid(self) -> None:
        geometry = self.build().double()
        if geometry.curvature is None:
            return
        x, root_c = self.embeddings(geometry), geometry.curvature.sqrt()[:, None]
        flat = geometry.flatten(x).unflatten(-1, (len(root_c), -1))  # (B1, F, d)
        r = root_c * torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
        torch.testing.assert_close(geometry.space_components(x), (flat * r.sinh() / r).flatten(1))

    def test_no_pairwise_function_holds_a_vector_for_each_pair(self) -> None:
        """(B1, B2, D) numbers would be 34 GB at a batch of 4096: go through inner products or distances."""
        geometry, cones = self.build(), self.build().cones
        x = self.embeddings(geometry, 40).float().requires_grad_()
        pairwise = [geometry.pairwise_similarity, geometry.ranking_similarity]
        pairwise += [] if cones is None else [cones.pairwise_exterior_angle]
        for function in pairwise:
            with Largest() as seen:
                function(x, x).sum().backward()
            assert seen.numel < 40 * 40 * D, f"{function.__name__}: a tensor of {seen.numel} numbers"

    def test_similarity_is_symmetric_and_highest_with_itself(self) -> None:
        geometry = self.build().double()
        x, y = self.embeddings(geometry), self.embeddings(geometry, B2, seed=1)
        similarity = geometry.pairwise_similarity(x, y)
        assert similarity.shape == (B1, B2)
        torch.testing.assert_close(similarity, geometry.pairwise_similarity(y, x).T, rtol=1e-12, atol=1e-12)
        with_itself = geometry.pairwise_similarity(x, torch.cat((x, y)))
        assert with_itself.argmax(-1).tolist() == list(range(B1))

    def test_ranking_similarity_has_the_same_order(self) -> None:
        geometry = self.build().double()
        x, y = self.embeddings(geometry), self.embeddings(geometry, 12, seed=1)
        slow, fast = geometry.pairwise_similarity(x, y), geometry.ranking_similarity(x, y)
        assert torch.equal(slow.argsort(-1), fast.argsort(-1))

    def test_distances_are_those_of_a_metric(self) -> None:
        """What diagnostics ask for: whatever the coordinates, and the same to the root as flat coordinates say."""
        geometry = self.build().double()
        x = torch.cat((self.embeddings(geometry), self.embeddings(geometry, B2, seed=1)))
        d = geometry.pairwise_distance(x, x)
        torch.testing.assert_close(d, d.mT, rtol=1e-9, atol=1e-9)
        assert (d.diagonal().abs() < 1e-6).all()  # sqrt of a rounding, where the length is an arc cosine
        assert (d[:, :, None] <= d[:, None, :] + d.mT[None] + 1e-9).all()
        paired = geometry.distance(x, x.roll(1, 0))
        torch.testing.assert_close(paired, d.roll(1, 1).diagonal(), rtol=1e-6, atol=1e-9)
        many = geometry.distance(x[:1].expand(150, -1), x[1:2].expand(150, -1))
        torch.testing.assert_close(many, d[0, 1].expand(150), rtol=1e-6, atol=1e-9)
        nearer = geometry.pairwise_similarity(x[:1], x[1:]).argsort(descending=True)
        assert torch.equal(geometry.pairwise_distance(x[:1], x[1:]).argsort(), nearer)
        root, curvature = geometry.root(D), geometry.curvature
        if root is None:
            return
        flat = geometry.flatten(x).unflatten(-1, (1 if curvature is None else len(curvature), -1))
        lengths = self.over_factors(torch.linalg.vector_norm(flat, dim=-1))
        torch.testing.assert_close(geometry.pairwise_distance(root[None].double(), x)[0], lengths)

    def test_curvature_is_one_positive_number_a_factor_within_its_range(self) -> None:
        geometry = self.build()
        curvature, limits = geometry.curvature, geometry.curvature_range
        if curvature is None:
            assert limits is None and "curv" not in geometry.stats()
            return
        assert curvature.ndim == 1 and bool((curvature > 0).all()) and not curvature.requires_grad
        assert limits is None or limits[0] <= curvature.min() <= curvature.max() <= limits[1]

    def test_curvature_tells_how_distances_differ_from_flat_ones(self) -> None:
        """Two points at distance r from the root, a right angle apart: cosh(sqrt(c) d) = cosh(sqrt(c) r)^2."""
        geometry = self.build().double()
        curvature, root = geometry.curvature, geometry.root(D)
        if curvature is None or root is None:
            return
        parts = len(curvature)
        flat = torch.zeros(2, parts, D // parts, dtype=torch.float64)
        flat[0, :, 0] = flat[1, :, 1] = 0.8
        x = geometry.lift(flat.flatten(1))
        side = (curvature.sqrt() * 0.8).cosh().square().acosh() / curvature.sqrt()  # (F,)
        torch.testing.assert_close(
            geometry.pairwise_distance(x[:1], x[1:])[0, 0], self.over_factors(side), rtol=1e-6, atol=0
        )

    def test_a_misspelt_side_is_refused(self) -> None:
        geometry = self.build()
        with pytest.raises(ValueError, match="side: got 'quary'; expected 'query' or 'key'"):
            geometry.inner_product_form(self.embeddings(geometry.double()), side="quary")  # type: ignore[arg-type]

    def test_similarity_does_not_depend_on_the_coordinate_frame(self) -> None:
        geometry, rotation = self.build().double(), self.rotation()
        x, y = rows(B1, seed=0), rows(B2, seed=1)
        turned = geometry.pairwise_similarity(geometry.lift(x @ rotation), geometry.lift(y @ rotation))
        plain = geometry.pairwise_similarity(geometry.lift(x), geometry.lift(y))
        torch.testing.assert_close(turned, plain, rtol=1e-9, atol=1e-9)

    def test_pool_of_one_or_of_copies_is_lift(self) -> None:
        geometry = self.build().double()
        x = rows(B1, seed=0)
        torch.testing.assert_close(geometry.pool(x[:1]), geometry.lift(x[0]), rtol=1e-12, atol=1e-12)
        copies = x[:, None].expand(B1, 3, D)  # (..., P, D)
        torch.testing.assert_close(geometry.pool(copies), geometry.lift(x), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_any_size_is_finite_or_refused(self, dtype: torch.dtype) -> None:
        """Values and gradients of every operation; fp32 is refused by a search index alone."""
        geometry = self.build().to(dtype)
        sizes = {
            torch.float32: (1e10, 1e18, 1e20, 1e30, 1e37),
            torch.float64: (1e60, 1e75, 1e145, 1e160, 1e290),
        }
        weights = torch.linspace(0, 1, T, dtype=dtype)
        operations: dict[str, Callable[[Tensor, Tensor], Tensor | None]] = {
            "lift": lambda x, y: geometry.lift(x),
            "pool": lambda x, y: geometry.pool(x),
            "flatten": lambda x, y: geometry.flatten(geometry.lift(x)),
            "similarity": lambda x, y: geometry.pairwise_similarity(geometry.lift(x), geometry.lift(y)),
            "ranking": lambda x, y: geometry.ranking_similarity(geometry.lift(x), geometry.lift(y)),
            "way": lambda x, y: geometry.interpolate(geometry.lift(x[0]), geometry.lift(y[0]), weights),
            "key": lambda x, y: geometry.inner_product_form(geometry.lift(x), side="key"),
            "query": lambda x, y: geometry.inner_product_form(geometry.lift(x), side="query"),
        }
        cones = geometry.cones
        if cones is not None:
            operations |= {
                "angle": lambda x, y: cones.exterior_angle(geometry.lift(x), geometry.lift(y)),
                "angles": lambda x, y: cones.pairwise_exterior_angle(geometry.lift(x), geometry.lift(y)),
                "aperture": lambda x, y: cones.half_aperture(geometry.lift(x)),
            }
        for size in sizes[dtype]:
            for name, operation in operations.items():
                x, y = ((size * rows(B2, seed=seed)).to(dtype).requires_grad_() for seed in (0, 1))
                try:
                    result = operation(x, y)
                except ValueError as error:
                    assert "beyond" in str(error)
                    assert dtype == torch.float64 or name in ("key", "query"), f"{name} at {size:g}: {error}"
                    continue
                if result is None:
                    continue
                assert result.isfinite().all(), f"{name} at {size:g}"
                result.sum().backward()
                for z in (x, y):
                    assert z.grad is None or z.grad.isfinite().all(), f"gradient of {name} at {size:g}"

    def test_interpolation_goes_from_the_root_to_the_point(self) -> None:
        geometry = self.build().double()
        x, root = self.embeddings(geometry, 1)[0], geometry.root(D)
        start = self.embeddings(geometry, 1, seed=5)[0] if root is None else root.double()
        path = geometry.interpolate(x, start, torch.linspace(0, 1, T))
        assert path.shape == (T, D)
        torch.testing.assert_close(path[0], start, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(path[-1], x, rtol=1e-12, atol=1e-12)
        nearness = geometry.pairwise_similarity(path, x[None])[:, 0]
        assert (nearness.diff() > 0).all()

    def test_distances_along_a_geodesic_add_up(self) -> None:
        geometry = self.build().double()
        if geometry.root(D) is None:  # chords of a sphere do not
            return
        x, y = self.embeddings(geometry, 2, seed=7)
        weights = torch.linspace(0, 1, T, dtype=torch.float64)
        path = geometry.geodesic(x, y, weights)
        way = geometry.pairwise_distance(torch.stack((x, y)), path)  # (2, T)
        whole = geometry.pairwise_distance(x[None], y[None])[0, 0]
        torch.testing.assert_close(way[0], weights * whole, rtol=1e-7, atol=1e-6)
        torch.testing.assert_close(way.sum(0), whole.expand(T), rtol=1e-7, atol=1e-6)

    def test_cones_or_none(self) -> None:
        geometry = self.build().double()
        cones = geometry.cones
        if cones is None:
            return
        x, y = self.embeddings(geometry, B2), self.embeddings(geometry, B2, seed=1)
        angle, aperture = cones.exterior_angle(x, y), cones.half_aperture(x)
        pairwise = cones.pairwise_exterior_angle(x, y)
        assert angle.shape[:-1] == aperture.shape[:-1] == (B2,)
        assert angle.shape[-1] == aperture.shape[-1]
        assert ((angle >= 0) & (angle <= torch.pi)).all()
        assert ((aperture > 0) & (aperture <= torch.pi / 2)).all()
        torch.testing.assert_close(pairwise.diagonal(), angle.mean(-1), rtol=1e-9, atol=1e-9)
        root = geometry.root(D)
        if root is not None:  # the root entails everything: its cone is all of the space in front of it
            at_root = cones.half_aperture(root.double())
            torch.testing.assert_close(at_root, torch.full_like(at_root, torch.pi / 2))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_low_precision_in_fp32_out_also_under_autocast(self, dtype: torch.dtype) -> None:
        geometry = self.build()
        features = rows(B1, seed=0, dtype=dtype)
        results = []
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                x = geometry.lift(features)
                results.append(
                    [x, geometry.flatten(x), geometry.pool(features), geometry.pairwise_similarity(x, x)]
                )
                results[-1].append(geometry.flatten(features))
                results[-1].append(geometry.pairwise_similarity(features, features))
        for plain, autocast in zip(*results, strict=True):
            assert plain.dtype == autocast.dtype == torch.float32
            assert torch.equal(plain, autocast)

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8, 1.0, 1e3])
    def test_values_and_gradients_are_finite(self, scale: float) -> None:
        geometry = self.build()
        x = (
            scale * torch.nn.functional.normalize(rows(B1, seed=0, dtype=torch.float32), dim=-1)
        ).requires_grad_()
        lifted = geometry.lift(x)
        y = torch.cat((lifted, -lifted, lifted.detach().roll(1, 0), torch.zeros(1, D)))
        terms = [lifted, geometry.flatten(lifted), geometry.pool(x), geometry.pairwise_similarity(lifted, y)]
        terms += [geometry.ranking_similarity(lifted, y)]
        cones = geometry.cones
        if cones is not None:
            terms += [cones.exterior_angle(lifted, lifted.roll(1, 0)), cones.half_aperture(lifted)]
            terms += [cones.pairwise_exterior_angle(lifted, y)]
        inputs = [x, *(p for p in geometry.parameters() if p.requires_grad)]
        for term in terms:
            assert term.isfinite().all()
            grads = torch.autograd.grad(term.sum(), inputs, retain_graph=True, allow_unused=True)
            assert all(g.isfinite().all() for g in grads if g is not None)

    def test_nan_stays_visible(self) -> None:
        geometry = self.build()
        x = torch.full((2, D), torch.nan)
        terms = [
            geometry.lift(x),
            geometry.pool(x),
            geometry.pairwise_similarity(x, x),
            geometry.ranking_similarity(x, x),
        ]
        cones = geometry.cones
        if cones is not None:
            terms += [
                cones.exterior_angle(x, x), cones.half_aperture(x), cones.pairwise_exterior_angle(x, x)
            ]  # fmt: skip
        assert all(term.isnan().all() for term in terms)

    def test_gradcheck(self) -> None:
        geometry = self.build().double()
        x, y = rows(3, seed=0).requires_grad_(), rows(2, seed=1).requires_grad_()

        def all_of(x: Tensor, y: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            a, b = geometry.lift(x), geometry.lift(y)
            return (geometry.pool(x), geometry.flatten(a), geometry.pairwise_similarity(a, b))

        parameters = [p for p in geometry.parameters() if p.requires_grad]
        assert torch.autograd.gradcheck(all_of, (x, y, *parameters))

    def test_state_and_constraint(self) -> None:
        geometry = self.build()
        before = copy.deepcopy(geometry.state_dict())
        geometry.constrain_()  # in range from the start
        assert all(torch.equal(v, before[k]) for k, v in geometry.state_dict().items())
        other = self.build()
        other.load_state_dict(before)
        assert all(isinstance(v, float) for v in geometry.stats().values())
        for parameter in geometry.parameters():
            with torch.no_grad():
                parameter.fill_(1e3)
        geometry.constrain_()
        x = self.embeddings(geometry)
        assert geometry.pairwise_similarity(x, x).isfinite().all()


class ScorerContract:
    """Conformance of a :class:`Scorer` together with a geometry it is meant for."""

    def build(self) -> tuple[Geometry, Scorer]:
        raise NotImplementedError("a contract test builds a geometry and its scorer")

    def embeddings(self) -> tuple[Geometry, Scorer, Tensor, Tensor]:
        geometry, scorer = self.build()
        geometry, scorer = geometry.double(), scorer.double()
        images, texts = geometry.lift(rows(B1, seed=0)), geometry.lift(rows(9, seed=1))
        return geometry, scorer, images.detach(), texts.detach()

    def test_logits_scale_with_the_scale_and_scores_do_not(self) -> None:
        geometry, scorer, images, texts = self.embeddings()
        kind = {"query_modality": "image", "key_modality": "text"}
        bias = getattr(scorer, "bias", None)
        with torch.no_grad():
            if bias is not None:
                bias.zero_()
            scorer.log_scale.fill_(0.0)
            one, scores = (
                scorer.logits(geometry, images, texts, **kind),
                scorer.scores(geometry, images, texts, **kind),
            )
            scorer.log_scale.fill_(2.0)
            more = scorer.logits(geometry, images, texts, **kind)
            after = scorer.scores(geometry, images, texts, **kind)
        assert one.shape == scores.shape == (B1, 9)
        torch.testing.assert_close(more, one * torch.tensor(2.0).double().exp())
        assert torch.equal(scores, after)

    @pytest.mark.parametrize("query", ["image", "text"])
    @pytest.mark.parametrize("key", ["image", "text"])
    def test_scores_rank_as_logits(self, query: str, key: str) -> None:
        geometry, scorer, images, texts = self.embeddings()
        kind = {"query_modality": query, "key_modality": key}
        logits = scorer.logits(geometry, images, texts, **kind)
        scores = scorer.scores(geometry, images, texts, **kind)
        assert torch.equal(logits.argsort(-1), scores.argsort(-1))

    @pytest.mark.parametrize("name", ["query_modality", "key_modality"])
    @pytest.mark.parametrize("method", ["logits", "scores", "tiled_logits"])
    def test_a_misspelt_modality_is_refused(self, method: str, name: str) -> None:
        """It would be read as the other one: the sign of an angle turns round."""
        geometry, scorer, images, texts = self.embeddings()
        kind = {"query_modality": "image", "key_modality": "text"} | {name: "img"}
        with pytest.raises(ValueError, match=f"{name}: got 'img'; expected 'image' or 'text'"):
            getattr(scorer, method)(geometry, images, texts, **kind)

    def test_class_scores_of_ragged_and_stacked_prompts(self) -> None:
        geometry, scorer, images, _ = self.embeddings()
        prompts = [rows(3, seed=10 + c) for c in range(4)]
        stacked = scorer.class_scores(geometry, images, torch.stack(prompts))
        assert stacked.shape == (B1, 4)
        torch.testing.assert_close(scorer.class_scores(geometry, images, prompts), stacked)
        # A class keeps its column whatever the number of prompts of the others.
        ragged = [*prompts[:2], rows(5, seed=20), prompts[3][:1]]
        result = scorer.class_scores(geometry, images, ragged)
        torch.testing.assert_close(result[:, :2], stacked[:, :2])
        # The order of the prompts of a class does not matter.
        turned = [p.flip(0) for p in ragged]
        torch.testing.assert_close(scorer.class_scores(geometry, images, turned), result)

    def test_class_scores_refuse_a_class_without_prompts(self) -> None:
        geometry, scorer, images, _ = self.embeddings()
        with pytest.raises(ValueError, match=r"prompt_features\[1\]: got shape \(0, 6\)"):
            scorer.class_scores(geometry, images, [rows(2, seed=0), rows(0, seed=0)])
        with pytest.raises(ValueError, match="prompt_features: got no class"):
            scorer.class_scores(geometry, images, [])

    def test_gradients_reach_embeddings_and_scale(self) -> None:
        geometry, scorer, images, texts = self.embeddings()
        images.requires_grad_()
        logits = scorer.logits(geometry, images, texts, query_modality="image", key_modality="text")
        grad, grad_scale = torch.autograd.grad(logits.square().sum(), (images, scorer.log_scale))
        assert grad.abs().sum() > 0
        # d/d log s of sum((s m)^2) = 2 sum((s m)^2), biases aside
        bias = getattr(scorer, "bias", None)
        if bias is None:
            torch.testing.assert_close(grad_scale, 2 * logits.square().sum())

    def test_low_precision_in_fp32_out(self) -> None:
        geometry, scorer = self.build()
        x = geometry.lift(rows(B1, seed=0)).to(torch.bfloat16)
        prompts = [rows(2, seed=1, dtype=torch.bfloat16), rows(3, seed=2, dtype=torch.bfloat16)]
        kind = {"query_modality": "image", "key_modality": "text"}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert scorer.logits(geometry, x, x, **kind).dtype == torch.float32
            assert scorer.scores(geometry, x, x, **kind).dtype == torch.float32
            assert scorer.class_scores(geometry, x, prompts).dtype == torch.float32

    def test_scale_is_clamped_from_above_only(self) -> None:
        _, scorer = self.build()
        with torch.no_grad():
            scorer.log_scale.fill_(50.0)
            scorer.constrain_()
            # The published bound, log 100 to four decimals; kept in fp32.
            assert scorer.log_scale.item() == pytest.approx(4.6052, rel=1e-6)
            scorer.log_scale.fill_(-3.0)
            scorer.constrain_()
            assert scorer.log_scale.item() == -3.0
