"""One small example of each widget: the code of a notebook cell that shows it.

The browser tests put all of them into one notebook. Each cell names its widget like its key here.
"""

from course_lib.widgets import CourseWidget

SETUP = """
import numpy as np
from course_lib import widgets
points = np.random.default_rng(0).normal(size=(400, 2))
"""

PLAYERS = {
    "particles": """
path = np.stack([points * np.array([1 - 0.2 * k, 1 + 0.2 * k]) for k in range(5)])
lines = np.stack(np.meshgrid(np.linspace(-3, 3, 9), np.linspace(-3, 3, 9)), -1)
mesh = np.stack([lines * np.array([1 - 0.2 * k, 1 + 0.2 * k]) for k in range(5)])
particles = widgets.ParticlePlayer(
    path, grid=mesh, color=points[:, 0], color_label="height", color_map="signed",
    labels=[f"squeeze {k}" for k in range(5)], title="Squeezed points",
)
particles
""",
    "panels": """
straight = np.stack([points * np.array([1 - 0.2 * k, 1 + 0.2 * k]) for k in range(5)])
turned = straight * np.array([1, -1])
finer = np.stack([points[:5] * np.array([1 - 0.05 * k, 1 + 0.05 * k]) for k in range(17)])
panels = widgets.ParticlePlayer(
    straight, beside=turned, titles=("one way", "the other"), trails=finer,
    beside_trails=turned[:, :3], role="model", labels=[f"squeeze {k}" for k in range(5)],
    title="Two ways",
)
panels
""",
    "ways": """
bent = []
for bend in (1.5, 0.7, 0.2):
    each = []
    for count in (1, 2, 4, 8, 16):
        states = [points[:200]]
        for k in range(count):
            u, v = states[-1].T
            states.append(states[-1] + bend / count * np.stack([-v, u - bend], 1))
        each.append(np.stack(states))
    bent.append(each)
ends = [np.stack([way[-1] for way in each]) for each in bent]
followed = [[way[:, :8] for way in each] for each in bent]
ways = widgets.ParticlePlayer(
    ends[0], beside=ends[1:], trails=followed[0], beside_trails=followed[1:],
    titles=["k = 1", "k = 2", "k = 3"], role="model", title="One step or many",
    captions=[[f"bend {bend}, {2**k} steps" for k in range(5)] for bend in (1.5, 0.7, 0.2)],
    labels=[f"squeeze {k}" for k in range(5)],
)
ways
""",
    "images": """
noise, digits = np.random.default_rng(1).random((2, 6, 8, 8))
share = np.linspace(0, 1, 5).reshape(5, 1, 1, 1)
images = widgets.ImagePlayer(
    (1 - share) * noise + share * digits, captions=list("abcdef"), columns=3,
    labels=[f"squeeze {k}" for k in range(5)], title="Noise to images",
)
images
""",
    "cloud": """
heap = np.random.default_rng(8).normal(size=(300, 3))
cloud = widgets.PointCloud(
    np.stack([heap * (1 - 0.15 * k) for k in range(5)]), color=heap[:, 2], color_label="height",
    labels=[f"squeeze {k}" for k in range(5)], title="A heap in space",
)
cloud
""",
}

OTHERS: dict[str, str] = {
    "warp": """
warp = widgets.DensityWarp(title="Change of variables")
warp
""",
    "inpaint": """
import time
calls, delay, fault = [], 0.0, ""
def fill(image, known):
    calls.append(known)
    time.sleep(delay)
    if fault:
        raise RuntimeError(fault)
    share = np.linspace(0, 1, 5).reshape(5, 1, 1)
    return np.where(known, image, share * (0.2 + 0.8 * image[known].mean()))
inpaint = widgets.Inpaint(
    np.random.default_rng(2).random((4, 8, 8)), fill, title="Scratch an image"
)
inpaint
""",
    "masks": """
degrees = [
    [[0, 1, 2, 3, 4], [0, 1, 1, 2, 3, 3], [0, 1, 2, 2, 3, 3, 0]],
    [[4, 2, 0, 3, 1], [3, 1, 1, 2, 0, 3], [2, 1, 3, 1, 1, 3, 2]],
]
masks = widgets.MaskExplorer(degrees, title="Masks of MADE")
masks
""",
    "pixels": """
import pathlib, time
written, trouble, dice = [], "", np.random.default_rng(3)
gate = pathlib.Path("gate")  # where it exists, it holds how many answers may be given
columns_first = np.arange(64).reshape(8, 8).T.ravel().tolist()
def write(image, n_known, label):
    written.append((image, n_known, label))
    while gate.exists() and len(written) > int(gate.read_text() or 0):
        time.sleep(0.02)
    if trouble:
        raise RuntimeError(trouble)
    known = np.zeros(64, dtype=bool)
    known[columns_first[:n_known]] = True
    drawn = dice.random((6, 8, 8)) < 0.3 + 0.4 * label
    conditionals = np.zeros((6, 64))
    conditionals[:, columns_first] = 0.06 * np.arange(6)[:, None] + np.arange(64) / 100
    return np.where(known.reshape(8, 8), image, drawn), conditionals.reshape(6, 8, 8)
pixels = widgets.PixelByPixel(
    write, order=columns_first, labels=["few", "many"], title="Pixel by pixel"
)
pixels
""",
    "field": """
down, right = np.mgrid[-6:7, -6:7]
before = (down < 0) | (down == 0) & (right < 0)
depth = np.arange(1, 5).reshape(-1, 1, 1)
reach = before & (np.maximum(abs(down), abs(right)) <= depth)
field = widgets.ReceptiveField(
    [reach & (right <= -down), reach], names=["one stack", "two stacks"], size=(7, 7),
    title="What a pixel sees",
)
field
""",
    "reparam": """
z = np.linspace(-4, 4, 161)
valleys = -np.log(0.01 + np.exp(-2 * (z + 1.8) ** 2) / 3 + np.exp(-1.2 * (z - 1.6) ** 2))
reparam = widgets.Reparameterization(z, valleys, mu=-0.4, sigma=0.7, title="Two gradients")
reparam
""",
    "voronoi": """
dust = np.random.default_rng(4)
book, outputs, books = dust.normal(size=(12, 2)) + [0.5, 0.5], points[:300], []
for _ in range(5):
    books.append(book.copy())
    owner = ((outputs[:, None] - book) ** 2).sum(-1).argmin(1)
    for k in set(owner):
        book[k] += 0.5 * (outputs[owner == k].mean(0) - book[k])
voronoi = widgets.Voronoi(
    np.stack(books), np.stack([outputs * (1 + 0.05 * t) for t in range(5)]), title="A codebook"
)
voronoi
""",
    "swap": """
import pathlib, time
swap_maps, swap_fault = [], ""
swap_gate = pathlib.Path("swap_gate")  # where it exists, it holds how many answers may be given
def swap_decode(codes):
    if len(codes) == 1:
        swap_maps.append(codes[0].tolist())
        while swap_gate.exists() and len(swap_maps) > int(swap_gate.read_text() or 0):
            time.sleep(0.02)
    if swap_fault:
        raise RuntimeError(swap_fault)
    flat = (codes / 7).repeat(2, 1).repeat(2, 2)  # each code a grey patch, a little blurred
    wide = np.pad(flat, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = wide[:, 2:, 1:-1] + wide[:, :-2, 1:-1] + wide[:, 1:-1, 2:] + wide[:, 1:-1, :-2]
    return (0.6 * flat + 0.1 * around) ** 2
def swap_encode(images):
    means = images.reshape(1, 4, 2, 4, 2).mean((2, 4))
    return np.rint(7 * means**0.5)
swap_codes = (np.arange(16).reshape(4, 4) * np.array([1, 3, 5]).reshape(3, 1, 1) // 2) % 8
swap = widgets.CodeSwap(
    swap_decode, swap_codes, 8, originals=swap_decode(swap_codes)[:, ::-1], encode=swap_encode,
    title="Swap codes",
)
swap
""",
    "plane": """
import pathlib, time
decoded, gripe = [], ""
latch = pathlib.Path("latch")  # where it exists, it holds how many answers may be given
def decode(z):
    decoded.append(z.tolist())
    while latch.exists() and len(decoded) > int(latch.read_text() or 0):
        time.sleep(0.02)
    if gripe:
        raise RuntimeError(gripe)
    axis = np.linspace(-3, 3, 12)
    away = (axis[None, ::-1, None] - z[:, 1, None, None].numpy()) ** 2
    away = away + (axis[None, None, :] - z[:, 0, None, None].numpy()) ** 2
    return np.exp(-away)
plane = widgets.LatentPlane(
    decode, points=points[:60], labels=np.arange(60) % 10, z=(1.0, -0.5), title="A plane"
)
plane
""",
    "square": """
tiles, sulk = np.random.default_rng(6).random((4, 8, 8)), ""
def mixture(spots):
    if sulk:
        raise RuntimeError(sulk)
    shares = widgets.corner_shares(spots).numpy() ** 12  # so steep that a blend of neighbours errs
    return np.tensordot(shares / shares.sum(1, keepdims=True), tiles, 1)
square = widgets.LatentPlane(
    mixture, extent=1, corners=tiles, z=(0.18, -0.23), title="Between four images"
)
square
""",
    "beta": """
betas = np.array([0.1, 0.5, 2.0, 8.0])
centre = points[:50] / betas[:, None, None] ** 0.5
spread = np.broadcast_to((betas / (1 + betas)).reshape(4, 1, 1), (4, 50, 2))
shade = np.linspace(0.2, 0.8, 4).reshape(4, 1, 1, 1)
beta = widgets.BetaExplorer(
    betas, means=centre, stds=spread, labels=np.arange(50) % 10,
    originals=np.random.default_rng(4).random((5, 8, 8)),
    reconstructions=np.broadcast_to(shade, (4, 5, 8, 8)),
    samples=np.broadcast_to(1 - shade, (4, 10, 8, 8)),
    rates=[6, 4, 2, 0], distortions=[10.0, 10.5, 13.0, 25.0], title="One beta after another",
)
beta
""",
    "mixer": """
shelf = np.random.default_rng(5)
mixer = widgets.ScaleMixer(
    shelf.random((3, 8, 8)),
    [shelf.normal(size=shape) for shape in [(3, 2, 4, 4), (3, 4, 2, 2), (3, 4, 4)]],
    shelf.random((3, 7, 4, 8, 8)), names=["fine", "middle", "coarse"], title="Mixed scales",
)
mixer
""",
    "dissolve": """
rest = 1 - np.arange(1, 51) / 51
dissolve = widgets.Dissolve(
    points, {"straight": rest, "bent": rest**3},
    noise=np.random.default_rng(9).normal(size=(400, 2)), title="Dissolving points",
)
dissolve
""",
    "fan": """
def spreading(t, a, b, reach):
    x = np.linspace(-reach, reach, 81)
    spread = np.sqrt((0.4 * a) ** 2 + b**2)[:, None]
    heights = [share * np.exp(-(((x - m * a[:, None]) / spread) ** 2) / 2) / spread
               for share, m in ((0.7, -1.2), (0.3, 1.5))]
    return {"t": t, "a": a, "b": b, "x": x, "density": sum(heights)}
hours = np.linspace(0, 1, 41)
fan = widgets.FanOfPaths({
    "fades": spreading(hours, np.exp(-2.5 * hours**2), np.sqrt(1 - np.exp(-5 * hours**2)), 3.5),
    "spreads": spreading(hours, np.ones(41), 0.02 * 150**hours, 9),
}, start=1.5, end=0.3, title="A fan of paths")
fan
""",
    "langevin": """
axis = np.linspace(-5, 5, 101)
bumps = lambda *wells: -np.log(
    sum(w * np.exp(-(((axis - m) / s) ** 2) / 2) / s for w, m, s in wells)
)
langevin = widgets.Langevin(
    axis, {"two wells": bumps((0.3, -2.2, 0.5), (0.7, 2, 0.7)),
           "three wells": bumps((1, -3, 0.5), (1, 0, 0.5), (1, 3, 0.5))},
    n_particles=120, n_steps=300, title="Particles in a landscape",
)
langevin
""",
    "arrows": """
plot = np.stack(np.meshgrid(np.linspace(-3, 3, 9), np.linspace(-2, 2, 7)), -1)
spiral = plot @ np.array([[-0.1, 0.5], [-0.5, -0.1]])
arrows = widgets.VectorField(
    np.stack([plot * (1 + k) for k in range(5)]), extent=(-3, 3, -2, 2),
    flow=np.stack([(0.4 + 0.3 * k) * spiral for k in range(5)]),
    points=np.stack([points[:60] * (1 - 0.2 * k) for k in range(5)]),
    labels=[f"turn {k}" for k in range(5)], field_label="away", title="Away and around",
)
arrows
""",
    "fluid": """
fluid = widgets.Fluid(title="A fluid on a line")
fluid
""",
    "race": """
race_times = np.linspace(0, 1, 385)
race = widgets.SolverRace(
    [[1.5, 0.5], [-1, 1.2], [-0.4, -1.4]], stds=0.3, times=race_times,
    a=1 - race_times, b=race_times, da=-np.ones(385), db=np.ones(385), title="Three solvers",
)
race
""",
    "design": """
design = widgets.DesignSpace(title="Path, times and solver")
design
""",
    "precond": """
scribbles = np.sign(np.random.default_rng(14).normal(size=(20, 8, 8)) - 0.3)
precond = widgets.Preconditioning(
    scribbles, np.random.default_rng(15).normal(size=(20, 8, 8)), title="What the network sees"
)
precond
""",
    "crossing": """
near = np.random.default_rng(11).normal(size=(24, 2))
far = 0.2 * near[:, ::-1] + np.array([[1.5, 0], [-1.5, 0]]).repeat(12, 0)
crossing = widgets.CrossingLines(
    near, far, {"independent": np.arange(24), "sorted": np.argsort(np.argsort(-near[:, 0]))},
    title="Crossing lines",
)
crossing
""",
    "in_time": """
in_time = widgets.CrossingLines(
    np.sort(points[:30, 0]), np.repeat([-1.5, 1.5], 15),
    {"independent": np.random.default_rng(12).permutation(30), "optimal": np.arange(30)},
    title="Lines over time",
)
in_time
""",
    "uncross": """
fence = np.linspace(-2, 2, 6)
left, right = (np.stack([np.full(6, x), fence], 1) for x in (-2.0, 2.0))
uncross = widgets.Uncross(left[[4, 2, 5, 0, 3, 1]], right, title="Pairs to uncross")
uncross
""",
    "between": """
blends = np.random.default_rng(7).random((2, 3, 5, 8, 8))
share = np.linspace(0, 1, 5)
sag = np.sqrt(share**2 + (1 - share) ** 2) * np.array([[1.1], [1.0], [0.9]])
between = widgets.Interpolation(
    {"slerp": blends[0], "lerp": blends[1]}, norms={"slerp": np.ones((3, 5)), "lerp": sag},
    norm_label="length", typical=(0.85, 1.05), title="Between two latents",
)
between
""",
    "table": """
brush = np.random.default_rng(7)
table = widgets.SampleTable(
    brush.random((3, 4, 4, 4, 4)), ("steps", [5, 20, 100]), ("η", [0, 0.2, 0.5, 1]),
    title="Steps by eta",
    quality=12.0 / np.arange(1, 13).reshape(3, 4), quality_label="distance", cost=[5, 20, 100],
    cost_label="network evaluations",
)
table
""",
    "guided": """
guided = widgets.GuidedPlane(
    [[-1.2, 0.6], [-0.3, -1.0], [0.4, 0.9], [1.3, -0.2]], [0, 0, 1, 1], stds=0.45,
    weights=[2, 1, 1, 2], n_particles=150, title="Guided particles",
)
guided
""",
    "operating": """
pen, prices = np.random.default_rng(13), np.array([5, 10, 20, 50, 100])
operating = widgets.OperatingPoint(
    {name: np.stack([prices, best + rate * prices**-power], 1) for name, best, rate, power in (
        ("Euler", 2, 300, 1.0), ("Heun", 1.5, 3000, 2.0), ("multistep", 1.4, 900, 2.0))},
    {"Euler": pen.random((5, 6, 8, 8)), "Heun": [None, *pen.random((4, 6, 8, 8))]},
    labels={name: [f"{n} calls" for n in prices] for name in ("Euler", "Heun", "multistep")},
    x_label="network calls", y_label="feature distance", log_x=True, log_y=True,
    title="Calls against distance",
)
operating
""",
    "ring": """
ring = widgets.Ring(4, step=2, title="Chunks around a ring")
ring
""",
    "timeline": """
weights = np.array([40, 1, 1, 2, 2, 4, 4, 8, 8, 16]) * 1_000_000
timeline = widgets.Timeline(
    weights, 0.02 * weights / weights.sum() + 0.001, bandwidth=4e9, title="Backward and all-reduce"
)
timeline
""",
    "cost": """
cost = widgets.Cost(
    {"GPT-2 124M": 124_439_808, "GPT-2 1.5B": 1_557_611_200, "SD3 8B": 8_000_000_000},
    model="GPT-2 1.5B", processes=16, title="Memory and speed",
)
cost
""",
    "running": """
running = widgets.RunningMaximum(
    [0.5, 1.2, -0.4, 2.6, 1.9, 3.4], values=[-1, 0.4, 2, 1.1, -0.3, 1.6], step=4,
    title="A running maximum",
)
running
""",
    "tiling": """
tiling = widgets.Tiles(n=512, d=64, sram=24576, causal=True, step=7, title="Tiles")
tiling
""",
    "roofline": """
roofline = widgets.Roofline(4096, 64, title="A roofline")
roofline
""",
    "contour": """
import time
outlines = np.zeros((2, 16, 16))
outlines[0, 3:13, [5, 10]] = outlines[0, [3, 12], 5:11] = 1
outlines[1] = np.fliplr(np.eye(16))
drawings, wait, trouble = [], 0.0, ""
def draw(outline, prompt, strength):
    drawings.append((outline, prompt, strength))
    if trouble:
        raise RuntimeError(trouble)
    for share in (0.25, 0.5, 0.75, 1.0):
        time.sleep(wait)
        image = np.full((3, 16, 16), 0.2 * share)
        image[prompt] += 0.4 * strength * share * outline
        yield image
contour = widgets.ContourPad(
    outlines, ["a thin red 0", "a thin green 0"], draw, title="Draw a contour"
)
contour
""",
    "box": """
import time
asked, slow, broken = [], 0.0, ""
def paint(prompts, scale):
    asked.append((prompts, scale))
    if broken:
        raise RuntimeError(broken)
    for share in (0.5, 1.0):
        time.sleep(slow)
        images = np.zeros((len(prompts), 3, 8, 8))
        for i, prompt in enumerate(prompts):
            colour = ["red", "green", "blue"].index(prompt.split()[0])
            images[i, colour, 1:7, 2 + i % 2 : 5] = share * (0.4 + 0.1 * scale)
        yield images
box = widgets.PromptBox(
    {"colour": ["red", "green", "blue"], "digit": ["3", "7"], "where": ["on the left", "above"],
     "below it": ["a white 0", "a white 1"]},
    paint, stored={"colour": ["red", "green"], "digit": ["3", "7"]}, ends=["on the left"],
    scales=[1, 3, 6], n=2, title="A prompt box",
)
box
""",
    "looks": """
draw_from = np.random.default_rng(5)
frames = np.zeros((5, 3, 12, 12))
frames[:, 0, 2:10, 4:7] = np.linspace(0.1, 1, 5).reshape(5, 1, 1)
shares = draw_from.dirichlet(np.ones(4), (5, 3, 3)).transpose(0, 3, 1, 2)
looks = widgets.WordAttention(
    frames, ["a", "thin", "red", "1"], shares, labels=[f"squeeze {k}" for k in range(5)],
    word=2, title="Who looks at which word",
)
looks
""",
    "where": """
hard = np.linspace(0.05, 0.95, 19)
rows = [
    {"name": "uniform", "sampling": "uniform", "quality": 0.52, "error": 0.02},
    {"name": "logit-normal (0, 1)", "sampling": "logit-normal", "m": 0.0, "s": 1.0,
     "quality": 0.41, "error": 0.012},
    {"name": "logit-normal (0.5, 0.6)", "sampling": "logit-normal", "m": 0.5, "s": 0.6,
     "quality": 0.44, "error": 0.03},
    {"name": "mode (1.29)", "sampling": "mode", "scale": 1.29, "quality": 0.43, "error": 0.01},
    {"name": "cosmap", "sampling": "cosmap", "quality": 0.45, "error": 0.02},
]
where = widgets.TimeSampling(
    hard, 0.3 + 2 * (hard - 0.45) ** 2, rows, quality="energy distance, lower is better", m=0.2,
    title="Where to train",
)
where
""",
    "joint": """
sheet = np.zeros((3, 12, 12))
sheet[0, 2:10, 4:7] = 1
joint_rng = np.random.default_rng(6)
joint = widgets.JointAttentionMap(
    sheet, ["a", "thin", "red", "1"], joint_rng.dirichlet(np.ones(13), (4, 13)), (3, 3),
    labels=[f"block {k}" for k in range(1, 5)], title="Joint attention",
)
joint
""",
    "sizes": """
disc = (np.hypot(*np.mgrid[-3.5:4.5, -3.5:4.5]) < 3).astype(float)
sizes = widgets.SameNoise(
    disc * np.array([0.9, 0.5, 0.1]).reshape(3, 1, 1), sizes=(8, 32), title="Same noise"
)
sizes
""",
}

GALLERY = PLAYERS | OTHERS


def cell(name: str) -> dict:
    """What the gallery's cell of this name makes, run in this process: its widget and all else."""
    space: dict = {}
    exec(SETUP + GALLERY[name], space)
    return space


def in_python(name: str) -> CourseWidget:
    """The gallery's widget of this name in Python alone, with no page that shows it."""
    return cell(name)[name]
