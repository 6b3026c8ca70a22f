"""Builds the word lists that the detector ships, from public lists: ``python -m bench.notes.make_lexicons --data DIR --faker DIR``.

--data: the folder of public packs that docs/notes.md lists; --faker: the package folder of Faker (MIT), unpacked, for
names beyond the United States. Notes of the benchmark's test part are never read.
"""

from __future__ import annotations

import argparse
import collections
import csv
import gzip
import json
import lzma
import re
from pathlib import Path

import pyarrow.parquet as pq

from bench.notes.corpora import in_test_part
from synclave_shared.text.view import folded

OUT = Path(__file__).parents[2] / "shared/synclave_shared/text/data"
BRANDS = """
abilify accutane actos adderall advair advil albuterol aldactone aleve allegra altace amaryl ambien amoxil anaprox ancef apresoline aricept arimidex armour
atarax ativan atrovent augmentin avandia avapro avelox axid azithromycin bactrim bactroban benadryl benicar bentyl biaxin botox bumex buspar caduet calan
capoten carafate cardizem cardura catapres ceftin celebrex celexa cialis cipro claritin cleocin clinoril clonidine codeine colace compazine concerta coreg
coumadin cozaar crestor cymbalta darvocet decadron demerol depakote desyrel detrol dexilant diflucan digoxin dilantin dilaudid diovan ditropan dulcolax
duragesic effexor elavil eliquis enbrel entresto epipen estrace evista fentanyl ferrous fioricet flagyl flexeril flomax flonase flovent fosamax glucophage
glucotrol glucovance haldol heparin humalog humira humulin hydrodiuril hytrin hyzaar imdur imitrex imodium inderal indocin invokana ismo isordil januvia jardiance
kayexalate keflex keppra klonopin kytril lamictal lanoxin lantus lasix levaquin levemir levitra levothroid levoxyl lexapro lidoderm lipitor lopid lopressor
lortab lotensin lotrel lovenox lunesta lupron luvox lyrica macrobid maxair maxzide medrol megace metformin methotrexate mevacor miacalcin micardis micronase
minipress miralax mobic motrin mucinex mysoline namenda naprosyn nasacort nasonex neurontin nexium niaspan nitro nolvadex norco normodyne norvasc novolin
novolog nubain oxycontin ozempic pamelor paxil pepcid percocet percodan periactin phenergan plaquenil plavix pletal pradaxa pravachol prednisone premarin
prevacid prilosec prinivil procardia prograf prolixin propecia proscar protonix proventil provera provigil prozac pulmicort reglan relafen remeron remicade
renagel requip restoril retin risperdal ritalin robaxin robitussin rocephin roxicet seroquel serevent sinemet singulair skelaxin soma spiriva strattera
suboxone sudafed symbicort synthroid tagamet tamiflu tegretol tenormin tessalon tiazac ticlid timoptic tobradex topamax toprol toradol tramadol trazodone
trental tricor trileptal trulicity tums tylenol ultracet ultram valium valtrex vancomycin vanceril vasotec ventolin verapamil versed viagra vicodin
victoza vioxx vistaril voltaren vytorin warfarin wellbutrin xalatan xanax xarelto zantac zaroxolyn zestoretic zestril zetia zithromax zocor zofran zoloft
zosyn zovirax zyban zyloprim zyprexa zyrtec
""".split()
"""Drugs by the names they are written with in notes; some are names of persons, too."""

LETTERS = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


def read_lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def write(name: str, words: set[str]) -> None:
    """Sorted, each word as (letters shared with the one before, the rest): what xz makes small."""
    previous, lines = "", []
    for word in sorted(words):
        shared = 0
        while shared < min(len(word), len(previous), 25) and word[shared] == previous[shared]:
            shared += 1
        lines.append(chr(97 + shared) + word[shared:])
        previous = word
    blob = lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    (OUT / f"{name}.txt.xz").write_bytes(blob)
    print(f"{name:12} {len(words):7} words {len(blob):8} bytes")


# Larger towns of the United Kingdom, Ireland, Australia, New Zealand and Canada, by hand.
ABROAD = """
london birmingham manchester liverpool leeds sheffield bristol leicester coventry nottingham newcastle sunderland brighton hull plymouth stoke-on-trent wolverhampton
derby swansea southampton salford aberdeen westminster portsmouth york peterborough dundee lancaster oxford newport preston st albans norwich chester cambridge
salisbury exeter gloucester lisburn chichester winchester londonderry carlisle worcester bath durham lincoln hereford armagh inverness stirling canterbury lichfield
newry ripon bangor truro ely wells cardiff edinburgh glasgow belfast reading luton bolton bournemouth middlesbrough blackpool stockport huddersfield swindon poole
southend ipswich slough telford gateshead cheltenham watford oldham rotherham blackburn bradford crawley gillingham basildon eastbourne colchester sutton worthing
rochdale solihull basingstoke maidstone woking bedford grimsby hartlepool halifax darlington st helens hastings wigan warrington stevenage birkenhead barnsley
southport hemel hempstead doncaster burnley bury scunthorpe harlow redditch weston-super-mare tamworth torquay shrewsbury nuneaton harrogate chesterfield mansfield
stafford wakefield crewe guildford aylesbury northampton kettering rugby corby wellingborough loughborough burton yeovil taunton barnstaple penzance falmouth newquay
weymouth andover aldershot farnborough epsom dartford gravesend margate ramsgate dover folkestone ashford lowestoft yarmouth king's lynn boston grantham skegness
whitby scarborough bridlington skipton keighley dewsbury accrington kendal whitehaven workington barrow hexham morpeth alnwick berwick evesham stourbridge halesowen
dudley walsall west bromwich kidderminster malvern stroud cirencester trowbridge swanage bridgwater minehead bideford wrexham rhyl llandudno llanelli neath
port talbot barry merthyr tydfil aberystwyth carmarthen haverfordwest pontypridd caerphilly falkirk perth kilmarnock ayr paisley greenock motherwell hamilton
livingston dunfermline kirkcaldy dumfries hawick galashiels oban fort william elgin wick omagh enniskillen ballymena coleraine antrim dungannon newtownards
dublin cork limerick galway waterford drogheda dundalk sligo kilkenny tralee ennis letterkenny athlone
sydney melbourne brisbane adelaide canberra hobart darwin gold coast wollongong geelong townsville cairns toowoomba ballarat bendigo albury wodonga launceston
mackay rockhampton bunbury bundaberg wagga wagga hervey bay mildura shepparton gladstone tamworth traralgon orange dubbo bowral geraldton nowra warrnambool
kalgoorlie albany devonport mount gambier lismore burnie alice springs port macquarie coffs harbour broken hill port augusta whyalla karratha broome esperance
bairnsdale longreach katherine ceduna armidale goulburn horsham echuca swan hill
auckland wellington christchurch hamilton tauranga dunedin palmerston north napier nelson rotorua whangarei invercargill wanganui gisborne timaru
toronto montreal calgary ottawa edmonton winnipeg mississauga vancouver brampton hamilton surrey halifax laval markham vaughan gatineau saskatoon longueuil kitchener
burnaby windsor regina richmond hill oakville burlington oshawa barrie sherbrooke saguenay levis kelowna abbotsford coquitlam trois-rivieres guelph kingston
moncton thunder bay sudbury fredericton saint john lethbridge kamloops nanaimo red deer brandon charlottetown whitehorse yellowknife
"""
TWO_WORDS = "st albans|st helens|hemel hempstead|king's lynn|west bromwich|port talbot|merthyr tydfil|fort william|gold coast|wagga wagga|hervey bay|mount gambier|alice springs|port macquarie|coffs harbour|broken hill|port augusta|swan hill|palmerston north|richmond hill|thunder bay|saint john|red deer"


def faker_names(root: Path) -> tuple[set[str], set[str]]:
    """Given and family names of all locales in Latin script, read from the sources without running them."""
    import ast

    given: set[str] = set()
    family: set[str] = set()
    for path in sorted(root.glob("providers/person/*/__init__.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            target = node.targets[0].id
            into = given if target.startswith("first_names") else family if target.startswith("last_names") else None
            if into is None:
                continue
            for leaf in ast.walk(node.value):
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                    for part in leaf.value.split():
                        key = folded(part)
                        if len(key) > 1 and re.fullmatch(r"[a-z]+(?:['-][a-z]+)*", key):
                            into.add(key)
    return given, family


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of public packs, docs/notes.md")
    parser.add_argument("--faker", type=Path, required=True, help="package folder of Faker's sources")
    options = parser.parse_args()
    data = options.data
    OUT.mkdir(exist_ok=True)

    given = {folded(word) for word in read_lines(data / "gazetteers/first_names_us.txt.gz")}
    family = {folded(word) for word in read_lines(data / "gazetteers/surnames_us.txt.gz")}
    more_given, more_family = faker_names(options.faker)
    given |= more_given
    family |= more_family

    places, states = set(), set()
    for row in csv.DictReader(read_lines(data / "gazetteers/us_cities.csv.gz")):
        places.add(folded(row["CITY"]))
        places.add(folded(row["COUNTY"]) + " county")
        states.add(folded(row["STATE_NAME"]))
    facilities = set()
    for row in csv.DictReader(read_lines(data / "gazetteers/us_hospitals_cms.csv.gz")):
        facilities.add(" ".join(folded(row["Hospital Name"]).replace(",", " ").split()))

    # Ordinary words: seen in small letters in public medical text.
    lower: collections.Counter[str] = collections.Counter()
    upper: collections.defaultdict[str, set[str]] = collections.defaultdict(set)

    def read(document: str, text: str, *, capitals: bool = True) -> None:
        for found in LETTERS.finditer(text):
            word = found.group()
            if word.islower():
                lower[folded(word)] += 1
            elif capitals and word[0].isupper() and found.start() > 2:
                before = text[max(0, found.start() - 6) : found.start()]
                if re.search(r"[a-z,;(] ?$", before) and not re.search(r"(?:Dr|Mr|Ms|Mrs)\.? $", before):
                    upper[folded(word)].add(document)

    for row in pq.read_table(data / "mtsamples/notes.parquet").to_pylist():
        if not in_test_part(row["sample_id"]):
            read(f"mt{row['sample_id']}", row["transcription"] or "")
    for line in read_lines(data / "dialogue-notes/mts_dialog.jsonl.gz"):
        read("dialogue", json.loads(line)["dialogue"], capitals=False)
    for name in ("aci_bench", "primock57"):
        for line in read_lines(data / f"dialogue-notes/{name}.jsonl.gz"):
            read("dialogue", json.loads(line)["note"] + json.loads(line)["dialogue"], capitals=False)
    clinical: set[str] = set()
    for line in read_lines(data / "clinical-ner/maccrobat2020.jsonl.gz"):
        note = json.loads(line)
        read(note["id"], note["text"])
    for name in ("bc5cdr_train", "ncbi-disease_train", "bc5cdr_devel", "ncbi-disease_devel"):
        for place, line in enumerate(read_lines(data / f"clinical-ner/{name}.jsonl.gz")):
            row = json.loads(line)
            read(f"{name}{place // 8}", " ".join(row["tokens"]))
            clinical |= {
                folded(token)
                for token, tag in zip(row["tokens"], row["tags"], strict=True)
                if tag != "O" and token[0].isupper() and LETTERS.fullmatch(token) and len(token) > 2
            }
    for title in pq.read_table(data / "code-tables/icd10cm_2021.parquet", columns=["long"])["long"].to_pylist():
        words = LETTERS.findall(title or "")
        for word in words[1:]:
            if word.islower():
                lower[folded(word)] += 1
            elif word[0].isupper() and len(word) > 3:
                clinical.add(folded(word))
    for line in read_lines(data / "synthetic-pii/presidio_synth_v2.jsonl.gz"):
        for word in LETTERS.findall(json.loads(line)["text"]):
            if word.islower():
                lower[folded(word)] += 1

    ordinary = {word for word, count in lower.items() if count >= 2 and len(word) > 1}
    # Names are often typed without capitals; a word that is a given name needs many witnesses to count as ordinary.
    ordinary -= {word for word in given if lower[word] < 12}
    eponyms = {word for word, notes in upper.items() if len(notes) >= 3 and len(word) > 2} | clinical
    eponyms = {word for word in eponyms if word not in ordinary and (word not in given or len(upper[word]) >= 12)}

    eponyms |= set(BRANDS)

    spanish: collections.Counter[str] = collections.Counter()
    spanish_places: set[str] = set()
    spanish_names: set[str] = set()
    spanish_upper: set[str] = set()
    for line in read_lines(data / "meddocan/train.jsonl.gz"):
        note = json.loads(line)
        text = list(note["text"])
        for entity in note["entities"]:
            label = entity["label"]
            words = [folded(word) for word in LETTERS.findall(entity["text"])]
            if label == "NOMBRE_SUJETO_ASISTENCIA" or label == "NOMBRE_PERSONAL_SANITARIO":
                spanish_names |= {word for word in words if len(word) > 2} - {"del", "las", "los"}
            if label == "TERRITORIO" and words:
                spanish_places.add(folded(entity["text"].strip()))
            for start, end in entity["spans"]:
                text[start:end] = "#" * (end - start)
        for word in LETTERS.findall("".join(text)):
            if word.islower():
                spanish[folded(word)] += 1
            elif word[0].isupper() and len(word) > 2:
                spanish_upper.add(folded(word))
    family |= spanish_names
    # Every name of this set is marked, so that a capital outside its marks belongs to an eponym, a drug or a sentence.
    write("eponyms-es", {word for word in spanish_upper - spanish_names if spanish[word] < 2})
    write("given", given)
    write("family", family - {""})
    write("places-us", {place for place in places if re.fullmatch(r"[a-z][a-z.' -]{2,30}", place)} | states)
    write("places-es", {place for place in spanish_places if re.fullmatch(r"[a-z][a-z.' -]{2,30}", place)})
    abroad = {found.group() for found in re.finditer(rf"{TWO_WORDS}|[a-z'-]+", ABROAD)}
    # Words of the language need more than a list to be towns: "reading", "ring".
    write("places-abroad", {town for town in abroad if town not in ordinary})
    write("facilities-us", facilities)
    write("ordinary-en", ordinary)
    write("eponyms-en", eponyms)
    write("ordinary-es", {word for word, count in spanish.items() if count >= 2 and len(word) > 1} - {"garcia"})


if __name__ == "__main__":
    main()
