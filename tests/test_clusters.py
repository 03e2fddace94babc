"""Clusters of points, new points from them, and the latents of vae that are drawn so."""

import numpy as np
import pytest
import torch
from conftest import FLOAT64
from test_registries import shapes

from biasstudy import GENERATORS
from biasstudy.core.context import Context
from biasstudy.models.generators.clusters import chosen, clusters_of, gaussian, largest

CONTEXT = Context(FLOAT64)


def vae(**options):
    return GENERATORS["vae"].target(steps=6, batch=16, channels=8, latent=3, **options)


def test_new_points_have_the_mean_and_covariance_of_the_points():
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.normal(size=(7, 3)) @ rng.normal(size=(3, 3)))
    made = gaussian(points, torch.tensor(rng.normal(size=(200_000, 7)))).numpy()
    assert np.allclose(made.mean(0), points.mean(0), atol=0.02)
    assert np.allclose(np.cov(made.T), np.cov(points.numpy().T), atol=0.05)


def test_points_that_lie_apart_are_clusters_of_their_condition():
    rng = np.random.default_rng(1)
    told = np.repeat([0, 1, 1, 1], 20)
    place = np.repeat([0.0, 0.0, 50.0, 100.0], 20)
    points = torch.tensor(place[:, None] + rng.normal(size=(80, 2)))
    # Lloyd's algorithm ends in a local optimum: that it begins well is the seed's doing
    best = max(
        (clusters_of(points, told, 3, 10, seed) for seed in range(10)),
        key=lambda cluster: len(np.unique(np.stack([place, cluster])[:, told == 1], axis=1).T) == 3,
    )
    of_second = best[told == 1].reshape(3, 20)
    assert (of_second == of_second[:, :1]).all() and len(set(of_second[:, 0])) == 3
    assert set(clusters_of(points[:7], told[:7], 3, 10, 0)) == {0}, "seven points are one cluster"


def test_clusters_are_chosen_in_proportion_to_their_size():
    known, cluster = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 0, 0, 1, 1, 1])
    told = np.repeat([0, 1], 1000)
    pick = np.tile(np.linspace(0, 1, 1000, endpoint=False), 2)
    count = {
        (told[rows[0]].item(), members.start, members.stop): len(rows)
        for rows, members in chosen("some", known, cluster, told, pick)
    }
    assert count == {(0, 0, 3): 750, (0, 3, 4): 250, (1, 4, 6): 400, (1, 6, 9): 600}
    assert largest(known, cluster) == 3
    with pytest.raises(ValueError, match="some was told condition 2, which its training set"):
        list(chosen("some", known, cluster, np.array([2]), np.zeros(1)))


def test_latents_of_vae_are_those_of_its_images():
    """Mean and covariance of what is drawn, against those of the encoded images by the law of total
    variance; nothing of a condition that was not told."""
    pool = shapes()
    model = vae(clusters=2)
    state = model.fit(pool, pool.label, None, seed=1, context=CONTEXT)
    plain = vae().fit(pool, pool.label, None, seed=1, context=CONTEXT)
    assert all(torch.equal(plain[name], state[name]) for name in plain), "the networks are the same"
    known, cluster = (state[f"latents.{name}"].numpy() for name in ("told", "cluster"))
    mean, variance = (state[f"latents.{name}"].numpy() for name in ("mean", "variance"))
    assert (np.bincount(known) == np.bincount(pool.label)).all() and cluster.max() == 1
    told = np.full(40_000, 1)
    z = model._drawn(state, told, 0, 5, CONTEXT).numpy()
    here = known == 1
    assert np.allclose(z.mean(0), mean[here].mean(0), atol=0.03)
    total = np.zeros((3, 3))
    for c in np.unique(cluster[here]):
        of = mean[here & (cluster == c)]
        share = len(of) / here.sum()
        between = of.mean(0) - mean[here].mean(0)
        own = np.cov(of.T) + np.diag(variance[here & (cluster == c)].mean(0))
        total += share * (own + np.outer(between, between))
    assert np.allclose(np.cov(z.T), total, atol=0.03 * np.trace(total))


def test_the_latent_of_an_image_depends_on_its_number_alone():
    pool = shapes()
    model = vae(clusters=3)
    state = model.fit(pool, pool.label, None, seed=1, context=CONTEXT)
    told = np.arange(600) % 3
    whole = model.sample(state, told, 0, seed=2, context=CONTEXT)
    part = model.sample(state, told[250:270], 250, seed=2, context=CONTEXT)
    assert (whole[250:270] == part).all()


def test_clusters_of_vae_are_checked():
    with pytest.raises(ValueError, match="vae: clusters must be at least 0; got -1"):
        vae(clusters=-1)
