"""What harmonise must make of the trees of `raw_trees.py` with --validation 0 --test 0."""

from rfxray.attributes.vocabulary import PATHOLOGY_NAMES
from tests.data_prep.raw_trees import HEX, LONG

# What No Finding says of a labeller who looked for all 12 pathologies.
NORMAL = " ".join(["no_finding=present", *(f"{name}=absent" for name in PATHOLOGY_NAMES)])

# Split and known attributes of each kept row, without the source and closed-vocabulary negatives.
KEPT = {
    "mimic/10000032/50414267/02aa804e-bde0afdd": (
        "train",
        "view=PA sex=F age=52 race=White atelectasis=present edema=absent no_finding=absent",
    ),
    "mimic/10000032/50414267/174413ec-4ec4c1f7": (
        "train",
        "view=lateral sex=F age=52 race=White atelectasis=present edema=absent no_finding=absent",
    ),
    "mimic/10000980/50985099/2a2277a9-b0ded155": (
        "validation",
        f"sex=M age=91 {NORMAL}",
    ),
    "rexgradient/GRDN1/pGRDN1_aGRDN1ABC/1.4.png": (
        "train",
        f"view=PA sex=M age=7 {NORMAL}",
    ),
    "rexgradient/GRDN1/pGRDN1_aGRDN1ABC/1.5.png": (
        "train",
        f"sex=M age=7 {NORMAL}",
    ),
    "rexgradient/GRDN2/pGRDN2_aGRDN2ABC/1.7.png": ("validation", "age=0.005476"),
    "chexpert/patient00001/study1/view1_frontal.jpg": (
        "train",
        "view=AP sex=F age=68 race=White cardiomegaly=present pneumothorax=absent "
        "no_finding=absent",
    ),
    "chexpert/patient64541/study1/view1_frontal.jpg": (
        "validation",
        f"view=AP age=30 race=Asian {NORMAL}",
    ),
    f"padchest/{LONG}1/{LONG}/{LONG}_a.png": ("train", f"view=PA sex=F age=84 {NORMAL}"),
    f"padchest/{LONG}2/{LONG}/{LONG}_b.png": (
        "train",
        "view=AP sex=M age=85 cardiomegaly=present pleural_effusion=present no_finding=absent",
    ),
    f"padchest/{LONG}2/{LONG}/{LONG}_c.png": ("train", "age=86"),
    "nih/1/0/00000001_000.png": (
        "test",
        "view=PA sex=M age=58 lung_opacity=present lung_lesion=present no_finding=absent",
    ),
    "nih/2/0/00000002_000.png": ("train", "view=AP sex=F no_finding=present"),
    "brax/id_0/7/image-0.png": ("train", f"view=PA sex=F age=45 {NORMAL}"),
    "brax/id_1/7/image-1.png": ("train", "sex=M age=85 fracture=present no_finding=absent"),
    f"vindr/{HEX[0]}//{HEX[0]}": (
        "train",
        "view=PA sex=M age=45 pneumothorax=present lung_opacity=present no_finding=absent",
    ),
    f"vindr/{HEX[1]}//{HEX[1]}": ("train", "view=PA no_finding=present"),
    f"vindr/{HEX[2]}//{HEX[2]}": ("test", "view=PA fracture=present no_finding=absent"),
}

# Beginning of the reason of each dropped row or file.
LEDGER = {
    "mimic/10001000/51112222/68b5c4b1-227d0485": "does not decode: ",
    "mimic/10001000/51112222/ffffffff-ffffffff": "no file",
    "mimic: files/p10/p10000032/s50414267/.azDownload-1b-02aa804e.jpg": "a leftover of a broken",
    "rexgradient/GRDN2/pGRDN2_aGRDN2ABC/1.6.png": "inverted",
    "chexpert/patient00003/study1/view1_frontal.jpg": "a duplicate: the same pixels as nih/1/0/",
    "chexpert/patient00003/study2/view1_lateral.jpg": "its patient is in test: shares a picture "
    "with nih/1",
    f"padchest: 1/{LONG}_d.png": "projection EXCLUDE: no chest view",
    f"padchest/{LONG}4/{LONG}/{LONG}_e.png": "does not decode: ",
    "nih/3/1/00000003_000.png": f"a duplicate: nearly the same picture as padchest/{LONG}1/",
    "nih: images_002/images/00000099_000.png": "no row in the table",
    "brax/id_2/7/image-2.png": "rotated: by 180°",
    "brax/id_3/7/image-3.png": "too narrow: 40 × 480 pixels, more than 4 times as long as wide",
    "brax/id_4/7/image-4.png": "blank",
}

# States of the 14 labels of each row that has a file: `.` unlabelled, `+` positive, `-` negative,
# `c` negative by closed vocabulary, `n` by No Finding, `?` uncertain. The order is that of
# FINDING_NAMES: enlarged cardiomediastinum, cardiomegaly, opacity, lesion, edema, consolidation,
# pneumonia, atelectasis, pneumothorax, effusion, pleural other, fracture, devices, no finding.
STATES = {
    "mimic/10000032/50414267/02aa804e-bde0afdd": "....-.?+.....-",
    "mimic/10000032/50414267/174413ec-4ec4c1f7": "....-.?+.....-",
    "mimic/10000980/50985099/2a2277a9-b0ded155": "nnnnnnnnnnnn.+",
    "mimic/10001000/51112222/68b5c4b1-227d0485": "..............",
    "rexgradient/GRDN1/pGRDN1_aGRDN1ABC/1.4.png": "n-nnnnnnnnnn.+",
    "rexgradient/GRDN1/pGRDN1_aGRDN1ABC/1.5.png": "n-nnnnnnnnnn.+",
    "rexgradient/GRDN2/pGRDN2_aGRDN2ABC/1.6.png": "..............",
    "rexgradient/GRDN2/pGRDN2_aGRDN2ABC/1.7.png": "..............",
    "chexpert/patient00001/study1/view1_frontal.jpg": ".+......-....-",
    "chexpert/patient00003/study1/view1_frontal.jpg": "..............",
    "chexpert/patient00003/study2/view1_lateral.jpg": "..............",
    "chexpert/patient64541/study1/view1_frontal.jpg": "nnnnnnnnnnnn.+",
    f"padchest/{LONG}1/{LONG}/{LONG}_a.png": "nnnnnnnnnnnnc+",
    f"padchest/{LONG}2/{LONG}/{LONG}_b.png": "?+.......+...-",
    f"padchest/{LONG}2/{LONG}/{LONG}_c.png": "..............",
    f"padchest/{LONG}4/{LONG}/{LONG}_e.png": "..............",
    "nih/1/0/00000001_000.png": ".c++c??cccc..-",
    "nih/2/0/00000002_000.png": ".cccccccccc..+",
    "nih/3/1/00000003_000.png": ".cccccccccc...",
    "brax/id_0/7/image-0.png": "nnnnnnnnnnnn.+",
    "brax/id_1/7/image-1.png": "....?......+.-",
    "brax/id_2/7/image-2.png": "....?......+.-",
    "brax/id_3/7/image-3.png": "....?......+.-",
    "brax/id_4/7/image-4.png": "....?......+.-",
    f"vindr/{HEX[0]}//{HEX[0]}": ".c+cc??c+ccc.-",
    f"vindr/{HEX[1]}//{HEX[1]}": ".ccccccccccc.+",
    f"vindr/{HEX[2]}//{HEX[2]}": ".cccccccccc+.-",
}
