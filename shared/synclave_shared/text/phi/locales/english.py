"""English: American and British notes."""

from __future__ import annotations

import re
from typing import Final

from synclave_shared.text.phi.checksums import ssn
from synclave_shared.text.phi.dates import DateWords, date_patterns
from synclave_shared.text.phi.locale import Locale
from synclave_shared.text.phi.pattern import DIGITS, IDENTIFIER, Pattern, digits, first_runs, labelled, shipped
from synclave_shared.text.spans import PhiClass

__all__ = ["ENGLISH"]

_ONES: Final = "one|two|three|four|five|six|seven|eight|nine"
_TEENS: Final = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS: Final = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_NUMBER: Final = rf"(?:(?:{_TENS})(?:[- ](?:{_ONES}))?|{_TEENS}|{_ONES})"
_DAYS: Final = (
    r"(?:twenty|thirty)[- ](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)|first|second|third|fourth|fifth|sixth|"
    r"seventh|eighth|ninth|tenth|eleventh|twelfth|thirteenth|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|"
    r"nineteenth|twentieth|thirtieth"
)
_MONTHS: Final = (
    "january|february|march|april|may|june|july|august|september|october|november|december|"
    "jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec"
)
_PLAIN_MONTHS: Final = "January|February|April|June|July|August|September|October|November|December|JANUARY|FEBRUARY|APRIL|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER|january|february|april|june|july|august|september|october|november|december"

_WORDS: Final = DateWords(
    months=_MONTHS,
    weekdays="monday|tuesday|wednesday|thursday|friday|saturday|sunday|mon|tues|tue|wed|thurs|thur|thu|fri|sat|sun",
    ordinals="st|nd|rd|th",
    days=_DAYS,
    years=rf"(?:nineteen|twenty)[- ](?:(?:oh|o)[- ](?:{_ONES})|{_NUMBER}|hundred)|two thousand(?:(?: and)?[- ]{_NUMBER})?",
    of="of",
    before="scheduled for|on|from|since|dated|date|until|till|by|through|before|after|around|about|circa|last|next|this|in|during|of|between|"
    "dob|born|admitted|discharged|seen|started|stopped|d/c|performed|done|due|visit|as of|adm|lmp|eff|effective|surgery|exam|"
    "next visit|next session|next tx|next appointment|next appt|next clinic|next scan|early|late|mid|available|ready|recheck|return|returns|rtc|f/u|appt|appointment|booked|again|msg|onset|injury|back",
    on_the="(?:on|until|till|by|dated|since|for|before|after) the",
    labels="date|dates|d|t|dd|dt|doa|dod|dos|dob|adm|admit|admission|admitted|disch|discharge|discharged|dictated|transcribed|signed|visit|seen|"
    "collected|received|reported|birth|surgery|service|exam date|procedure date|printed|updated|effective|eff|appt|appointment",
    year_confidence=0.45,
    not_before=r"days|weeks|hours|hrs|months|years|minutes|mins|times|sem|ns\b|normal saline|d5|strength|mm|cm|ml|mg|mcg|kg|lb|murmur|systolic|diastolic|power|motor|pain|bilat|in all|throughout|"
    r"on the|out of|points?|score|and symmetric|reflexes|pulses|tablet|tab|pill|dose|inch|percent|of a",
    seasons="spring|summer|fall|autumn|winter|christmas|thanksgiving|easter|halloween|new year's(?: day| eve)?|labor day|memorial day",
    feasts=r"christmas(?: day| eve)?|thanksgiving(?: day)?|new year's(?: day| eve)?|fourth of july|labor day|memorial day|"
    r"independence day|valentine's day|mother's day|father's day|boxing day|martin luther king day|presidents' day|"
    r"veterans day|good friday|easter(?: sunday| monday)?|halloween|hanukkah|passover|yom kippur|rosh hashanah|ramadan",
    ambiguous=(
        rf"(?-i:(?<!\w)(?:{_PLAIN_MONTHS})(?!\w))",
        r"(?<!\w)(?:in|since|last|until|of|by|during|early|late|mid|this|next|from|from|through)[ -](?P<v>(?-i:March|May|MARCH|MAY))(?!\w)",
        r"(?<!\w)(?:in|since|last|until|during|early|late|mid|next|through)[ -](?P<v>(?-i:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec))\b\.?(?!\w)",
    ),
)

_STATES: Final = {
    "AL": "Alabama", "AK": "Alaska", "AZ": "Arizona", "AR": "Arkansas", "CA": "California", "CO": "Colorado",
    "CT": "Connecticut", "DE": "Delaware", "DC": "District of Columbia", "FL": "Florida", "GA": "Georgia", "HI": "Hawaii",
    "ID": "Idaho", "IL": "Illinois", "IN": "Indiana", "IA": "Iowa", "KS": "Kansas", "KY": "Kentucky", "LA": "Louisiana",
    "ME": "Maine", "MD": "Maryland", "MA": "Massachusetts", "MI": "Michigan", "MN": "Minnesota", "MS": "Mississippi",
    "MO": "Missouri", "MT": "Montana", "NE": "Nebraska", "NV": "Nevada", "NH": "New Hampshire", "NJ": "New Jersey",
    "NM": "New Mexico", "NY": "New York", "NC": "North Carolina", "ND": "North Dakota", "OH": "Ohio", "OK": "Oklahoma",
    "OR": "Oregon", "PA": "Pennsylvania", "RI": "Rhode Island", "SC": "South Carolina", "SD": "South Dakota",
    "TN": "Tennessee", "TX": "Texas", "UT": "Utah", "VT": "Vermont", "VA": "Virginia", "WA": "Washington",
    "WV": "West Virginia", "WI": "Wisconsin", "WY": "Wyoming", "PR": "Puerto Rico", "GU": "Guam", "VI": "Virgin Islands",
}  # fmt: skip
_PROVINCES: Final = {
    "NSW": "New South Wales", "VIC": "Victoria", "QLD": "Queensland", "TAS": "Tasmania", "ACT": "Australian Capital Territory",
    "SA": "South Australia", "NT": "Northern Territory", "ON": "Ontario", "BC": "British Columbia", "AB": "Alberta", "QC": "Quebec",
    "MB": "Manitoba", "SK": "Saskatchewan", "NS": "Nova Scotia", "NB": "New Brunswick", "NL": "Newfoundland",
}  # fmt: skip
"""Of Australia and Canada."""
_ABROAD: Final = "NSW|VIC|QLD|TAS|ACT|SA|NT|WA"
_STATE: Final = "|".join(_STATES)
_STATE_NAMES: Final = "|".join(name for name in _STATES.values())

_WAY: Final = (
    r"Street|St|Avenue|Ave|Av|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Terrace|Ter|Terr|Circle|Cir|Way|"
    r"Highway|Hwy|Parkway|Pkwy|Pike|Trail|Trl|Square|Sq|Plaza|Plz|Loop|Crescent|Close|Gardens|Grove|Mews|Row|Hill|Alley|"
    r"Turnpike|Tpke|Expressway|Route|Rte|Path|Walk|Green|Crossing|Xing|Ridge|Run|Bend|Cove|Point|Pt|View|Heights|Hts|Park|Broadway"
)
_UNIT: Final = r"(?:,?[ ]{0,2}(?:\b(?:apt|apartment|suite|ste|unit|floor|fl|bldg|building|room|rm|lot|trlr|flat|box)\b\.?[ ]?#?[ ]?|#[ ]?)[\w-]{1,8})"
_SIDE: Final = r"(?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West|Northeast|Northwest|Southeast|Southwest)\b\.?[ ])?"
_PHONE: Final = r"\(?[+(]?\d[\d() ./-]{4,18}\d(?:[ ]?(?:x|ext\.?|extension)[ ]?\d{1,6})?"


def _street(found: str) -> bool:
    """A number and words are no street if they count something (``2 Days a Week Park``)."""
    return not re.search(r"(?i)\b(?:mg|ml|cm|mm|days?|weeks?|hours?|years?|french|units?|gauge|minutes?|times|cc|inch(?:es)?|[ap]\.?m|hrs?)\b|\b(?:for|with|by|to|see|per|and) dr\b", found)


_PATTERNS: Final[tuple[Pattern, ...]] = (
    *date_patterns(_WORDS),
    # Ages of ninety and more.
    shipped("age", PhiClass.DATE, "age", r"(?i)(?<![\w./-])(?P<v>9\d|1[0-2]\d)(?=[ -]{0,2}(?:years?|yrs?|y)[ -]{0,2}(?:of[ -]age|olds?|o)\b|[ -]?y/?o\b|[ -]?yo[mf]?\b|[ -]?y\.o\.|[ -]?yr[ -]old|[ ]?[mf]\b(?=[ ](?:with|who|presents|here)))", 0.95, first=DIGITS),
    # "97M", "101F with"; 97F alone is a temperature.
    shipped("age-sex", PhiClass.DATE, "age", r"(?i)(?<![\w./-])(?P<v>9\d|10\d|11\d)(?:M\b(?![.]?[ ]?(?:units|cells))|F\b(?=[ ,]{1,2}(?:with|w/|who|presents|s/p|hx|h/o|admitted|here|found|adm|from|c/o|[a-z]+ing)\b))", 0.7, first=DIGITS),
    shipped("age-line", PhiClass.DATE, "age", r"(?m)(?:^[ \t]{0,4}|^[A-Z]{2,3}[.,:]? )(?P<v>9\d|10\d|11\d) ?[MFmf](?![\w/])", 0.8),
    shipped("age-aside", PhiClass.DATE, "age", r"(?<=[a-z\"')], )(?P<v>9\d|10\d)(?=, (?!\d))", 0.6, first=DIGITS),
    shipped("age-after", PhiClass.DATE, "age", r"(?i)(?<!\w)(?:aged?|age of|at age|age at death|age[:,]|turned|turning|he is|she is|he was|she was|lived to(?: be)?|reached|died at)[ :]{1,2}(?:the )?(?:age )?(?:of )?(?P<v>9\d|1[0-2]\d)(?![\w%/°]|[.,]\d|[ ]?(?:mg|ml|mm|cm|%|degrees|bpm|beats|over|percent|pounds|lbs?|kg|on room|and regular|units|mmol|meq))", 0.8, first=frozenset("aged age at turned turning he she lived reached died".split())),
    shipped("age-field", PhiClass.DATE, "age", r"(?i)(?<!\w)(?:age(?:/sex)?|sex/age)[ ]?[:=][ ]{0,3}(?:[mf]\w{0,5} ?/ ?)?(?P<v>9\d|1[0-2]\d)(?!\d)", 0.95, first=frozenset({"age", "sex"})),
    shipped("age-years", PhiClass.DATE, "age", r"(?i)(?<![\w./-])(?P<v>9\d|1[0-1]\d)(?=[ ]?(?:years|yrs)\b(?! (?:ago|prior|later)))", 0.7, first=DIGITS),
    shipped("age-words", PhiClass.DATE, "age", rf"(?i)(?<!\w)(?P<v>ninety(?:[- ](?:{_ONES}))?|(?:one|a) hundred(?:[- ](?:and[- ])?(?:{_NUMBER}))?)(?=[ -]years?[ -]old|[ -]years? of age|[ -]year[ -])", 0.95),
    shipped("age-words-after", PhiClass.DATE, "age", rf"(?i)(?<!\w)(?:aged?|age of|at age|turned)[ ](?P<v>ninety(?:[- ](?:{_ONES}))?|(?:one|a) hundred(?:[- ](?:and[- ])?(?:{_NUMBER}))?)(?!\w)", 0.9, first=frozenset("age aged at turned".split())),
    shipped("age-nineties", PhiClass.DATE, "age", r"(?i)(?<!\w)(?:in (?:his|her|their) (?:(?:early|mid|late)[ -])?)(?P<v>nineties|90'?s|hundreds)(?!\w)", 0.9, first=frozenset({"in"})),
    shipped("age-nonagenarian", PhiClass.DATE, "age", r"(?i)(?<!\w)(?:nonagenarian|centenarian|supercentenarian)s?(?!\w)", 0.9),
    shipped("birth-year", PhiClass.DATE, "birth", r"(?i)(?<!\w)(?:born(?: in)?|birth ?year|year of birth|yob|dob)[ :]{1,3}(?P<v>(?:18|19|20)\d\d)(?![\w/-])", 0.85, first=frozenset("born birth birthyear year yob dob".split())),
    # Dictator and typist at the end of a letter.
    shipped("typist", PhiClass.NAME, "initials", r"(?m)(?:^[ \t]{0,8}|(?<=[.;] )|(?<=  ))(?P<v>[A-Z]{2,4}(?: ?/ ?[a-z]{2,4}|/[A-Z]{2,4})|[A-Z]{2,3}:[a-z]{2,3})(?=[ \t.;,]*$|[ ]{2,})", 0.8),
    shipped("initials-line", PhiClass.NAME, "initials", r"(?m)^[ \t]{0,4}(?!(?:HX|CC|PE|VS|ID|HPI|PMH|PSH|IMP|AGE|PT|AP|DX|RX|ROS|MED|HD|POD|DOL|DOB)\b)(?P<v>[A-Z]{2,3}|(?:[A-Z]\.){2,3})(?=[.,:]? (?:is an? )?\d{1,3} ?(?:M|F|yo|y/o|yr|year)\b)", 0.75),
    shipped("initials-signed", PhiClass.NAME, "initials", r"(?<![\w/])(?!(?:CT|MR|MRI|US|XR|CXR|EKG|ECG|EEG|EMG|ON|AT|BP|HR|ED|ER|OR|IV|DOS|DOB|NPO|LMP)\b)(?P<v>[A-Z]{2,3})(?= \d{1,2}[./-]\d{1,2}[./-]\d{2,4}[ ,]{1,2}[0-2]\d:?[0-5]\d\b)", 0.7),
    # "LAST, First M   MRN ..." at the head of a page.
    shipped("name-heading", PhiClass.NAME, "patient", r"(?m)^[ \t]{0,8}(?P<v>[A-Z][\w'-]{1,24}(?: [A-Z][\w'-]{1,24})?, ?[A-Z][\w'-]{1,24}(?: [A-Z]\b\.?)?)(?=[ \t.]{1,8}(?:\(?\d{1,2}[/-]\d|\(?#|\(?(?:ID|MRN?|DOB|D\.O\.B|HN|URN?|CHI|NHS|Acct|SSN|Age|born)\b))", 0.85),
    shipped("employer", PhiClass.PLACE, "employer", r"(?<!\w)(?:(?i:employer|employed (?:by|at)|works (?:for|at)|working (?:for|at)|worked (?:for|at)|attends|school|daycare|preschool|enrolled (?:in|at)|church))(?: is|:|,)?[ ](?:the )?(?P<v>(?=(?:St\. )?[A-Z][\w&'.-]{0,24}?[a-z])(?:St\. )?[A-Z][\w&'-]*(?:\.[\w&'-]+){0,4}(?:[ ](?:[A-Z&][\w&'-]*(?:\.[\w&'-]+){0,4}|of|the|and)){0,4}(?<![ .-]))", 0.7, check=lambda found: found.split()[0].lower() not in ("he", "she", "the", "patient", "night", "nights", "i", "and", "no", "none", "yes", "nurse", "performance", "full", "part", "home", "retired", "unemployed", "unknown", "age", "grade", "day", "not", "n"), first=frozenset("employer employed works working worked attends school daycare preschool enrolled church".split())),
    # Telephones.
    shipped("phone", PhiClass.PHONE, "phone", r"(?<![\w./-])(?:\+?1[-. ]{0,2})?(?:\(\d{3}\)[-. ]{0,2}|\d{3}[-. ]{1,3}|\d{3}/)\d{3}[-. ]{1,3}\d{4}(?!\d|-\d)(?:,?[ ]{0,2}(?:x|ext\.?|extension)[ ]?\d{1,6})?", 0.95),
    shipped("phone-local", PhiClass.PHONE, "phone", r"(?<![\w./-])\d{3}-\d{4}(?![\d%]|-\d|[ ]?(?:mg|ml|mcg|units|cc|kcal|calories)\b)(?:,?[ ]{0,2}(?:x|ext\.?|extension)[ ]?\d{1,6})?", 0.85, first=DIGITS),
    shipped("phone-uk", PhiClass.PHONE, "phone", r"(?<![\w./-])\(?0\d{2,4}\)?[ -]\d{3,4}[ -]?\d{3,4}(?![\d-])", 0.85, check=digits(9, 11)),
    labelled("phone-labelled", PhiClass.PHONE, "phone", ["phone", "telephone", "tel", "ph", "cell", "cellular", "cellphone", "mobile", "mob", "pager", "beeper", "home", "work", "office", "call", "calling", "contact", "reached at", "reach at", "voicemail", "hotline", "whatsapp", "pgr", "callback"], value=_PHONE, fillers=r"phone|telephone|number|num|no|nr|is|at|me|us|him|her|on|the|office|or|back", confidence=0.9, check=digits(7, 16)),
    labelled("pager", PhiClass.PHONE, "pager", ["pager", "beeper", "extension", "ext", "pgr", "pg", "bleep", "page me at"], value=r"\d{3,7}(?!\d|[./-]\d)", fillers="number|no|id|is|at", confidence=0.85, check=digits(3, 7)),
    labelled("fax", PhiClass.FAX, "fax", ["fax", "facsimile", "faxed to", "telefax"], value=_PHONE, fillers="number|num|no|nr|is|at|to|it|or|line", confidence=0.97, check=digits(7, 16)),
    # Numbers of persons.
    shipped("ssn", PhiClass.SSN, "ssn", r"(?<![\w./-])\d{3}-\d{2}-\d{4}(?![\w/]|-\d)", 0.97, check=ssn, first=DIGITS),
    labelled("ssn-labelled", PhiClass.SSN, "ssn", ["ssn", "ss#", "ss", "social security", "soc sec", "social", r"soc\. sec\.", r"s\.s\.n\.", "national insurance", "ni"], value=r"(?:\d{3}[ -]?\d{2}[ -]?\d{4}|[xX*]{3}[ -]?[xX*]{2}[ -]?\d{4}|\d{4}(?!\d)|[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D])(?!\w)", fillers="number|num|no|nbr|is|last|four|4|digits|of|ending|in", confidence=0.97, check=digits(4)),
    shipped("ssn-masked", PhiClass.SSN, "ssn", r"(?<!\w)[xX*]{3}-[xX*]{2}-\d{4}(?!\w)", 0.97),
    shipped("ni-number", PhiClass.SSN, "ssn", r"(?<!\w)[A-CEGHJ-PR-TW-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)", 0.9),
    labelled("mrn", PhiClass.MRN, "mrn", ["mrn", r"m\.r\.n\.", "mr#", "mr #", "mr no", "mr number", r"m\.r\. #", "med rec", r"med\. rec\.", "medical rec", "medical record", "medical records", "med record", "record", "hospital", "hosp", "unit", "chart", "patient id", "patient identification", "patient number", "patient no", "patient #", "pt id", "pt #", "pt no", "pid", "mpi", "empi", "nhs", "nhs number", "chi", "crn", "case record", "mrno", "mr", "hn", "uhn", "urn", "ur", "history", "history number", "history no", "band", "arm band", "armband", "wristband", "wrist band"], value=rf"\d{{2,3}}(?:[ ]\d{{2,3}}){{2,3}}(?!\d)|{IDENTIFIER}", check=digits(3)),
    labelled("health-plan", PhiClass.HEALTH_PLAN, "policy", ["policy", "member", "member id", "membership", "subscriber", "subscriber id", "group", "grp", "insurance", "insurance id", "insured", "medicare", "medicaid", "hicn", "hic", "mbi", "beneficiary", "health plan", "health card", "plan id", "plan", "payer id", "payor id", "bcbs", "blue cross", "aetna", "cigna", "humana", "tricare", "claim", "authorization", "auth", "prior auth", "rxbin", "bin", "pcn", "rx grp"], check=digits(4), fillers=r"number|numbers|num|nbr|no|nr|id|ids|policy|card|is|was|member|health|plan|insurance|#"),
    shipped("medicare-australian", PhiClass.HEALTH_PLAN, "medicare", r"(?<![\w./-])\d{4} \d{5} \d(?:[ ]?[/-][ ]?\d)?(?![\w-])", 0.85, first=DIGITS),
    shipped("mbi", PhiClass.HEALTH_PLAN, "medicare", r"(?<!\w)[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y]{2}\d{2}(?!\w)", 0.9),
    labelled("account", PhiClass.ACCOUNT, "account", ["account", "acct", r"acct\.", "a/c", "billing", "bill", "invoice", "guarantor", "routing", "fin", "csn", "har", "bank", "iban", "checking", "receipt", "sort code"], check=digits(4), fillers=r"number|numbers|num|nbr|no|nr|id|ids|account|is|was|#"),
    labelled("plate", PhiClass.VEHICLE, "plate", ["license plate", "licence plate", "plate", "plates", "number plate", "tag", "vehicle registration", "registration plate", "reg plate", "reg", "reg no", "vehicle tag", "car registration"], value=r"(?:[A-Z]{2}[ -])?[A-Z0-9]{2,4}[ -]?[A-Z0-9]{2,4}(?!\w)", fillers="number|num|no|nr|is|was|reads|reading", confidence=0.9, check=digits(1)),
    labelled("vin-labelled", PhiClass.VEHICLE, "vin", ["vin", "vehicle identification", "vehicle id", "chassis"], value=r"[A-Z0-9-]{5,17}(?!\w)", check=digits(3)),
    labelled("licence", PhiClass.LICENCE, "licence", ["license", "licence", "lic", "driver's license", "drivers license", "driver license", "driving licence", "dl", r"d\.l\.", "dln", "dea", "npi", "upin", "certificate", "certification", "cert", "state lic", "gmc", "nmc", "passport", "permit", "medical license", "board cert", "state id", "green card", "visa", "clia", "provider no", "provider number", "ahpra", "hcpc"], check=digits(4)),
    labelled("device", PhiClass.DEVICE, "serial", ["serial", "ser", "s/n", "sn", r"s\.n\.", "sn#", "device", "device id", "device identifier", "lot", "lot/serial", "model", "udi", "imei", "implant id", "implant", "catalog", "ref", "generator", "lead", "pacemaker", "icd", "pump", "mac address", "asset", "asset tag", "barcode"], check=digits(4), fillers=r"number|numbers|num|nbr|no|nr|id|ids|serial|identifier|is|was|#|s/n|sn", confidence=0.9),
    labelled("record-number", PhiClass.OTHER, "number", ["accession", "acc", "access", "acsn", "specimen", "case", "encounter", "enc", "visit", "visit id", "episode", "job", "job id", "dictation", "document", "doc", "doc id", "document id", "order", "requisition", "req", "study", "study id", "protocol", "trial", "sample", "slide", "path", "pathology", "surgical", "surg path", "report", "reference", "confirmation", "confirmation code", "tracking", "ticket", "file", "film", "exam id", "rx", "prescription", "employee", "employee id", "badge", "staff id", "provider", "provider id", "student", "student id", "inmate", "inmate id", "docket", "consent", "transaction", "id", "ident", "identifier", "patient portal", "username", "user id", "login", "pin", "confirmation", "donor", "unit no", "unos", "bed", "tissue", "session", "voucher"], check=digits(4), confidence=0.85, fillers=r"number|numbers|num|nbr|no|nr|id|ids|code|#|is|was"),
    labelled("donor-network", PhiClass.OTHER, "number", ["unos", "nmdp", "optn"], check=digits(2), confidence=0.85),
    shipped("case-number", PhiClass.OTHER, "number", r"(?<![\w-])[A-Z]{1,4}-?\d{2}-\d{3,7}(?![\w-])", 0.85),
    labelled("username", PhiClass.OTHER, "account-name", ["username", "user name", "login", "user id", "portal id", "screen name", "twitter", "instagram", "facebook", "skype", "handle", "password", "passcode"], value=r"@?[\w.-]{4,40}(?<![.-])", fillers="is|id|name|was", confidence=0.75, check=lambda found: any(letter.isdigit() or letter in "_@." for letter in found[:-1])),
    labelled("biometric", PhiClass.BIOMETRIC, "biometric", ["fingerprint", "fingerprints", "thumbprint", "retinal scan", "retina scan", "iris scan", "voice print", "voiceprint", "palm print", "biometric", "biometrics", "dna profile", "face id", "facial template", "hand geometry", "gait id"], fillers=r"number|no|id|ids|template|record|file|hash|reference|code|identifier|scan|sample|image|is|was|saved|stored|as|on|in|#", value=r"[A-Z0-9](?:[A-Z0-9]|[-./_:](?=[A-Z0-9])){2,63}", check=digits(2)),
    labelled("photo", PhiClass.PHOTO, "photo", ["photo", "photos", "photograph", "photographs", "picture", "pictures", "image", "images", "video", "headshot", "selfie", "full-face", "media"], fillers=r"number|no|id|ids|file|files|name|is|was|saved|stored|uploaded|as|at|attached|of|face|full|#|see", value=r"(?:[\w./\\-]{1,120}\.(?:jpe?g|png|tiff?|heic|bmp|gif|mp4|mov|avi|dcm|webp)\b|[A-Z0-9](?:[A-Z0-9]|[-._/](?=[A-Z0-9])){4,40})", check=lambda found: "." in found[:-1] or sum(letter.isdigit() for letter in found) > 4, confidence=0.75),
    shipped("image-file", PhiClass.PHOTO, "file", r"(?i)(?<![\w./\\-])[\w./\\-]{1,120}\.(?:jpe?g|png|tiff?|heic|bmp|gif|mp4|mov|avi|dcm|webp)(?!\w)", 0.9),
    # Addresses.
    shipped("street", PhiClass.PLACE, "street", rf"(?<![\w.,/$-])\d{{1,6}}(?:-\d{{1,4}}|[A-Za-z]|[ ]?1/2)?,?[ ]{_SIDE}(?:(?:[A-Z][\w'.-]{{0,24}}|\d{{1,3}}(?:st|nd|rd|th|ST|ND|RD|TH))[ ]){{1,4}}(?:(?i:{_WAY})\b\.?)(?:[ ](?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\b\.?)?{_UNIT}?", 0.95, check=_street, first=DIGITS),
    shipped("street-lower", PhiClass.PLACE, "street", rf"(?i)(?:(?<!\w)(?:address|lives|living|resides|residing|residence|home|located|at|moved to|located at)\b[:,]?[ ](?:is |at |on )?)(?P<v>\d{{1,6}}[A-Za-z]?,?[ ](?:[a-z\d][\w'.-]{{0,24}}[ ]){{1,4}}(?:{_WAY})\b\.?{_UNIT}?)", 0.9, check=_street),
    shipped("street-broadway", PhiClass.PLACE, "street", rf"(?<![\w.,/$-])\d{{1,6}}[ ]{_SIDE}(?:Broadway|Main|Route[ ]\d{{1,4}}|(?:State |US |U\.S\. )?(?:Highway|Hwy|Route|Rte|County Road|CR|SR)\.?[ ]\d{{1,4}})\b{_UNIT}?", 0.85, first=DIGITS),
    shipped("street-name", PhiClass.PLACE, "street", r"(?<![\w.])(?:(?:North|South|East|West|N\.|S\.|E\.|W\.)[ ])?(?:[A-Z][a-z']{2,20}|\d{1,3}(?:st|nd|rd|th))[ ](?:Street|Avenue|Road|Lane|Boulevard|Blvd|Highway|Parkway|Turnpike)\b(?![ ](?:Hospital|Clinic|Medical|Health|Surgery|Surgical))", 0.7),
    shipped("street-on", PhiClass.PLACE, "street", r"(?<![\w.])(?:[Oo]n|[Oo]ff|[Nn]ear|ON|OFF|NEAR)[ ](?!(?:THE|THIS|HIS|HER|A|The|This|ROOM|HOME)\b)(?P<v>(?:(?:[A-Z][\w'-]{1,30}|van|de)[ ]){1,2}(?:Drive|Court|Crescent|Terrace|Close|Way|Circle|Place|Street|Road|Rd|Ave|Avenue|Lane|Ln|DRIVE|COURT|STREET|ROAD|AVENUE|LANE|AVE|RD|LN|BLVD|HIGHWAY))(?!\w)(?! (?:Hospital|Clinic|Medical|Health))", 0.7),
    shipped("po-box", PhiClass.PLACE, "street", r"(?i)(?<!\w)p\.?[ ]?o\.?[ ]?box[ #]{1,3}\w{1,10}|(?<!\w)(?:post office|general delivery) box[ #]{1,3}\w{1,10}|(?<!\w)RR ?#? ?\d{1,3},? Box \d{1,5}", 0.95, first=frozenset("p po pobox post general rr rrbox".split())),
    shipped("apartment", PhiClass.PLACE, "street", r"(?<!\w)(?:Apt|Apartment|Suite|Ste|Flat)\b\.?[ ]?#?[ ]?(?:\d{1,5}[A-Za-z]?|[A-Z]\d{0,4})(?!\w)", 0.8, first=frozenset("apt apartment suite ste flat".split())),
    shipped("room", PhiClass.PLACE, "room", r"(?<!\w)(?:[Rr]oom|[Rr]m|ROOM|RM|[Bb]ed|BED|[Ww]ard)\b\.?[ ]?#?[ ]?(?=[\w-]{0,5}\d)[A-Z0-9-]{2,6}(?!\w)", 0.6, first=frozenset("room rm bed ward".split())),
    shipped("state-zip", PhiClass.PLACE, "zip", rf"(?<!\w)(?:{_STATE}|{_STATE_NAMES})\b\.?,?[ ]{{1,3}}(?P<v>\d{{5}}(?:-\d{{4}})?)(?![\w-])", 0.98, first=first_runs(_STATE, _STATE_NAMES)),
    shipped("zip-state", PhiClass.PLACE, "state", rf"(?<!\w)(?P<v>{_STATE}|{_STATE_NAMES})\b\.?,?[ ]{{1,3}}\d{{5}}(?:-\d{{4}})?(?![\w-])", 0.98, first=first_runs(_STATE, _STATE_NAMES)),
    shipped("county", PhiClass.PLACE, "city", r"(?<!\w)(?!(?:The|This|Our|That|Each|Local|A|In|THE)\b)(?P<v>(?:(?:St\.?|San|Santa|El|La|Los|Las|Le|De|Van|van|de|Mc|Prince|King|New|Mount|Fort|North|South|East|West|Upper|Lower) )?[A-Z][a-z'-][\w'-]{0,24} (?:County|Parish|Borough|Township))(?! (?:Hospital|Medical|Health|Clinic|Church|jail))(?!\w)", 0.8),
    shipped("state-zip-abroad", PhiClass.PLACE, "state", rf"(?<!\w)(?P<v>{_ABROAD}),?[ ]{{1,3}}\d{{4}}(?!\d)", 0.95),
    shipped("zip-abroad", PhiClass.PLACE, "zip", rf"(?<!\w)(?:{_ABROAD}),?[ ]{{1,3}}(?P<v>\d{{4}})(?!\d)", 0.95),
    shipped("zip-4", PhiClass.PLACE, "zip", r"(?<![\w./-])\d{5}-\d{4}(?![\w/]|-\d)", 0.9, first=DIGITS),
    labelled("zip", PhiClass.PLACE, "zip", ["zip", "zip code", "zipcode", "postal code", "postcode", r"zip\+4"], value=r"\d{5}(?:-\d{4})?(?!\d)|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}", fillers="code|is|of", confidence=0.97, check=digits(2)),
    shipped("postcode-uk", PhiClass.PLACE, "zip", r"(?<!\w)(?:GIR ?0AA|[A-Z]{1,2}\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{2})(?!\w)", 0.75),
    shipped("city-postcode", PhiClass.PLACE, "city", r"(?:,[ ]|\n[ \t]{0,8})(?P<v>[A-Z][a-z'-]{1,24}(?:[ -][A-Za-z][a-z'-]{1,24}){0,3})(?=,?[ \n][A-Z]{1,2}\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{2}(?!\w))", 0.85),
    shipped("postcode-ca", PhiClass.PLACE, "zip", r"(?<!\w)[ABCEGHJ-NPRSTVXY]\d[A-Z][ -]\d[A-Z]\d(?!\w)", 0.9),
    shipped("coordinates", PhiClass.PLACE, "coordinates", r"(?<![\w.])-?\d{1,2}\.\d{4,8},[ ]?-?\d{1,3}\.\d{4,8}(?!\w)", 0.9),
)

_LABEL_TAIL: Final = r"(?:[ ]?(?:name|names|\(s\)|id|of record|signature))?"
_NAME_LABELS: Final = re.compile(
    r"(?im)(?<![^\W_])(?:"
    r"(?P<patient>pat|name[ ]of[ ]patient|patient(?:'s)?(?:[ ](?:full|last|first|legal|preferred|middle))?(?:[ ]?name)|patient|pt(?:\.|[ ]name)?|name(?:[ ]of[ ]patient)?|(?:last|first|middle|full|legal|preferred|family|given|maiden|birth)[ ]names?|surname|forename|nickname|alias|a\.?k\.?a\.?|re|client|resident|subject|member|insured|subscriber|decedent|child|infant|baby|donor|recipient|testator|claimant|applicant|employee)"
    r"|(?P<relative>(?:emergency|primary|family|patient)[ ]contact(?:[ ]person)?|next[ ]of[ ]kin|nok|guarantor|guardian|legal[ ]guardian|spouse|mother|father|husband|wife|son|daughter|brother|sister|partner|parent|parents|caregiver|health[ ]?care[ ]proxy|proxy|poa|hcpoa|power[ ]of[ ]attorney|informant|historian|responsible[ ]party|surrogate|contact|hcp|mom|dad|interpreter|witness|(?:family|relatives?|spouse|parents?)[ ](?:informed|notified|aware|updated|contacted))"
    r"|(?P<doctor>(?:attending|referring|ordering|consulting|primary|primary[ ]care|admitting|dictating|responsible|requesting|treating|family|supervising|performing|operating|interpreting|discharge|discharging|ed|er|emergency|rendering|reading|covering|signing|assistant|resident|co|on-?call|collaborating)[ ]?(?:physician|doctor|md|dr|provider|surgeon|clinician|practitioner|pathologist|radiologist|nurse|cardiologist|np|pa)s?|attending|attg|appointments?(?:[ ]with)?|referral source|referred from|clinician|tech|secretary|pcp|gp|physician|provider|surgeon|surgeons|co-?surgeon|(?:first |second |surgical )?assistants?|asst|anesthesiologist|anaesthetist|anesthetist|anesthesia|crna|radiologist|pathologist|cardiologist|oncologist|neurologist|psychiatrist|psychologist|therapist|dentist|nurse|rn|np|pa|pa-c|consultant|consultants|consultation with|case manager|social worker|counselor|pharmacist|technician|technologist|sonographer|resident|fellow|intern|author|scribe|signed|signature|cosigner|co-?signed by|(?:electronically |digitally |e-?)?(?:signed|authenticated|verified|approved|reviewed|dictated|transcribed|reported|interpreted|performed|ordered|prepared|entered|written|referred|attested|read|examined|finalized|recorded|documented|completed|authorized|released|collected|assessed)(?:[ ]and[ ][a-z]+)?[ ](?:electronically )?by(?:[ ]and[ ][a-z]+[ ]by)?|transcriptionist|dictator|cc|c\.c\.|bcc|copies to|copy to|attn|attention|to|from|dear|sincerely|regards|best regards|kind regards|(?:with )?(?:best|kind|warm|kindest|all good) wishes|yours faithfully|respectfully|respectfully submitted|yours truly|yours sincerely|cordially|thank you|d/t|seen by|evaluated by|followed by|under the care of|care of|c/o)"
    r"|(?P<person>contact name|person|name and address|account name|holder|employer contact|teacher|coach|pastor|landlord|neighbor|friend|attorney|lawyer|officer|judge)"
    r")" + _LABEL_TAIL + r"[ \t]*(?P<sep>[:=#]|-{1,2}[ ]|,[ \t]*\n|\t|(?<=by) |[ ]?\.{3,40}|[ ]{2}|(?<=\ndear) |"
    r"(?:(?<=sincerely)|(?<=regards)|(?<=wishes)|(?<=faithfully)|(?<=truly)|(?<=cordially)|(?<=respectfully))[,.]?[ \t]*\n[ \t]{0,8})[ \t]*\n?[ \t]*"
)

_CUES_BEFORE: Final = re.compile(
    r"(?i)(?<!\w)(?:(?:is |be |was |are )?(?:called|named|nicknamed|known as|goes by(?: the name(?: of)?)?|aka|a\.k\.a\.)|by the name of|"
    r"name is|name was|accompanied by|(?:discussed|spoke|speaking|talked|met|reviewed|conferred|consulted|spoken|agreed|counseled) with|"
    r"(?:signed|dictated|transcribed|referred|seen|evaluated|performed|reviewed|interpreted|followed|managed|examined|treated|read|sent|ordered|requested|administered|written|approved|verified|prescribed) by|"
    r"brought in by|care of|under|per|i,|attention|attn|dear|hello|hi|thank you,|thanks,|sincerely,|regards,|via|by|and|with|"
    r"patient|pt|pt\.|client|for|to see|see|seeing|sees|saw|told|informed|asked|notified|contacted|called|paged|contact|call|ask for|"
    r"baby|baby boy|baby girl|boy|girl|mr|mrs|ms)[ ,:]{1,2}$"
)

_CUES_AFTER: Final = re.compile(
    r"(?i),?[ ](?:is an? |was an? |is \d|was \d|who is |who was |was seen|is seen|was admitted|was discharged|was accompanied|is accompanied|"
    r"lives (?:at|in|with|on|alone)|resides|presents|presented|returns|returned|came|comes|arrived|denies|denied|reports|reported|states|"
    r"stated|complains|complained|has a history|had a history|has been|is scheduled|was last seen|was brought|was referred|was transferred|"
    r"was evaluated|was born|died|works|worked|smokes|drinks|understands|verbalized|agreed|agrees|consented|tolerated|underwent|will follow|will be|"
    r"will return|is here|is doing|is feeling|is currently|is being|called|says|said|noted|confirmed|performed|recommended|"
    r"can be reached|may be reached|MRN|DOB|\(?(?:MRN|DOB|age|aged)\b|\(?\d{1,3} ?(?:y/?o|yo|year)|dob\b|age \d|, a \d|, \d{1,3}[- ]year|, an? \d)"
)

ENGLISH: Final = Locale(
    code="en",
    patterns=_PATTERNS,
    titles={
        **dict.fromkeys(("dr", "drs", "doctor", "doctors", "prof", "professor", "nurse", "attending", "surgeon"), "doctor"),
        **dict.fromkeys(("mr", "mrs", "ms", "miss", "mister", "master", "mx", "messrs", "madam", "sir", "lady", "lord"), "patient"),
        **dict.fromkeys(
            ("rev", "reverend", "father", "sister", "brother", "rabbi", "pastor", "judge", "officer", "sgt", "capt", "captain", "lt", "col", "gen", "hon", "fr", "uncle", "aunt", "auntie", "grandma", "grandpa", "cousin"),
            "person",
        ),
    },
    credentials=frozenset(
        "md mbbs mbchb mb frcs frcp mrcp do rn lpn lvn np fnp arnp aprn crnp cnp cnm crna pa pac phd psyd dds dmd dpm dc od pharmd rph "
        "pt dpt ot otr msw lcsw lmsw lpc bsn msn mph facs facc facp faap facog fccp faans facr dnp rd rdn ccc slp cma rt rrt emt "
        "cnmt rdcs rvt aud ma ms jd esq ii iii jr sr fracgp frcgp mrcgp franzcp fracp mrcog mbbch bch ccds ocn cgc abpp ccrn cde cnor lmft lcpc rcp".split()
    ),
    name_labels=_NAME_LABELS,
    relations=frozenset(
        "husband wife spouse partner son daughter mother father mom dad mum brother sister child children parent aunt uncle niece nephew "
        "cousin grandmother grandfather grandson granddaughter grandma grandpa stepmother stepfather stepson stepdaughter stepbrother "
        "stepsister fiance fiancee boyfriend girlfriend friend neighbor neighbour roommate guardian caregiver caretaker twin sibling "
        "mother-in-law father-in-law son-in-law daughter-in-law brother-in-law sister-in-law ex-wife ex-husband half-brother half-sister "
        "godmother godfather foster significant-other companion aide coworker boss teacher pastor proxy interpreter carer babysitter classmate girlfriend fiancé landlord sitter nanny".split()
    ),
    roles=frozenset(
        "nurse midwife matron physiotherapist physio dietitian dietician pharmacist planner manager coordinator therapist worker tech technician "
        "technologist sonographer radiographer anesthesiologist anaesthetist registrar resident intern fellow hospitalist consultant paramedic "
        "secretary interpreter podiatrist optometrist nephrologist neph counselor psychologist psychiatrist audiologist surgeon assistant scribe "
        "pcp gp rn lpn cna lvn np crna clinician practitioner visitor orderly aide sister".split()
    ),
    small_cues=frozenset("by per pt patient client called paged named to w with from".split()),
    relation_fillers=frozenset("named called is was name 's and by".split()),
    cues_before=_CUES_BEFORE,
    cues_after=_CUES_AFTER,
    sure_cues_before=re.compile(
        r"(?i)(?<!\w)(?:(?:is |be |was |are )?(?:called|named|nicknamed)|known as|goes by(?: the name(?: of)?)?|aka|a\.k\.a\.|by the name of|name is|"
        r"name was|answers to|introduced (?:him|her)self as)[ ,:]{1,2}$"
    ),
    sure_cues_after=re.compile(
        r"(?i)'s (?:mother|father|wife|husband|son|daughter|sister|brother|mom|mum|dad|aunt|uncle|niece|nephew|partner|parents|grandmother|grandfather|cousin)\b|"
        r",?[ ](?:(?:was|is) accompanied|lives|resides|is an? \d|was an? \d|is a pleasant|is a very|was seen (?:in|by|on|at|today)|is scheduled for|"
        r"presents (?:with|for|to|today)|presented (?:with|for|to)|denies|denied|states|stated|complains|was last seen|was brought|was born|says|works (?:as|at|in|for)|"
        r"smokes|drinks|verbalized|returns|returned (?:to|for)|can be reached|may be reached|agrees|agreed|consented|understands|underwent|prefers to be|is married|is single|"
        r"is a \d|and (?:his|her) (?:wife|husband|mother|father|son|daughter|family|parents)|was discharged|was admitted|was transferred|died|passed away|telephoned|called (?:today|back|the))"
    ),
    particles=frozenset("de da di del della der den van von la le du dos das el al bin ibn ben st ter ten y e mac mc o abu san".split()),
    not_names=frozenset(
        "the a an he she it they we i you his her their this that these those there who which what when where why how if then and or but "
        "for nor so yet of in on at by to from with without as is was were are be been being has had have do does did not no yes none "
        "please patient pt name date dob mrn age sex male female address phone fax email history exam plan assessment subjective objective "
        "diagnosis procedure impression findings indication anesthesia medications allergies chief complaint review systems past present "
        "medical surgical family social hospital course discharge admission operative preoperative postoperative physical vital signs "
        "laboratory data specimen complications disposition condition follow up followup thank sincerely regards dear attending physician "
        "doctor dr mr mrs ms md do rn unknown none same self other see above below sample test note report department service unit clinic "
        "also today currently however after before during since while upon all both each any some she's he's it's unremarkable negative positive normal "
        "reason visit encounter account room bed ward general local spinal stable good fair poor left right bilateral dictated signed electronically "
        "will would could should may might can per cc re mother father husband wife son daughter english spanish medicare medicaid "
        "x xx xxx xyz abc abcd yyyy mm dd doe_ monday tuesday wednesday thursday friday saturday sunday january february april june july august "
        "september october november december er ed icu or pacu nicu picu micu sicu ct mri mac ros lbp ana hx pmh psh fh sh heent cn dtr acct alert mom dad mommy daddy grandma grandpa aunt uncle brother sister wife acct mr mrn ssn ekg iv prn "
        "enc id tel ur urn nhs mbi npi dea fin csn ph micu cvicu sicu bicu rn icu aetna cigna humana tricare kaiser insurance hello hi officer alias adjuster transplant licence license suite district appeals girl boy baby mondays tuesdays wednesdays thursdays fridays saturdays sundays thurs tues god lord jesus mass bill of rights internet google friday's".split()
    ),
    place_cues=re.compile(
        r"(?i)(?<!\w)(?:lives? in|living in|lived in|resid(?:es|ing|ed) in|works? in|working in|worked in|moved (?:here )?(?:to|from)|relocated (?:to|from)|"
        r"born (?:and raised )?in|raised in|grew up in|native of|originally from|originally of|resident of|hails from|comes from|came from|visiting from|"
        r"travel(?:l?ed|s|ing)? (?:to|from|through)|trip to|vacation(?:ing|ed)? in|visit(?:ed|ing)? (?:to )?|back from|returned from|stationed in|"
        r"retired (?:to|in)|transferred from|flew (?:to|from)|farm in|house in|home in|job in|school in|college in|family in|city|town|town of|city of|county|"
        r"village of|suburb of|birthplace|place of birth|pob|immigrated from|emigrated from|driving from|located in)(?:[ ]?[:]?[ ]?)$"
    ),
    place_prepositions=frozenset("in from near of to at around outside through".split()),
    states=_STATES | _PROVINCES,
    regions=frozenset(name.lower() for name in (_STATES | _PROVINCES).values()) - {"victoria"},
    risky_states=frozenset("MD PA DO OR IN ME OK HI OH ID MS MA CO DE LA AL MI MO PR AR CT NE VA MT SC PT ND ACT ON AB SA NT NS NB BC VIC".split()),
    degree_states=frozenset(("MD", "PA", "MS", "MA", "DC")),
    facility_heads=frozenset(
        "hospital|hospitals|hosp|medical center|medical centre|medical ctr|med center|med ctr|clinic|clinics|infirmary|hospice|sanatorium|sanitarium|"
        "health system|healthcare|health care|health center|health centre|healthcare system|health care center|medical group|medical associates|"
        "nursing home|nursing center|rehabilitation center|rehab center|rehab|surgery center|surgical center|cancer center|cancer institute|heart institute|"
        "institute|university|college|high school|elementary school|middle school|nursing facility|care center|care centre|manor|"
        "associates|llc|inc|pharmacy|laboratories|laboratory|dialysis center|imaging center|urgent care|physicians|practice|surgery|medical|"
        "eye center|women's center|birth center|trauma center|regional|pavilion|general hospital|memorial|assisted living|senior living|foundation|trust|nhs trust|hall|house|ltac|"
        "correctional facility|prison|jail|church|employer|care home|rest home|funeral home|retirement village|chemist|chemists|drugs|drug store|"
        "primary school|grammar school|elementary|academy|community college|preschool|daycare|parish|temple|mosque|synagogue|"
        "foods|logistics|industries|brothers|bros|transit|builders|and sons|tool|trucking|motors|construction|plumbing|bakery|farms|"
        "home health|home care|medical supply|ambulance|school district|fire department|base hospital|medical practice".split("|")
    ),
    facility_first=frozenset(),
    facility_links=frozenset("of the and for de del la at & - in".split()),
    facility_plain=frozenset(
        "sleep eye pain wound heart stroke trauma cancer breast diabetes family primary care urgent medical surgical surgery outpatient inpatient "
        "emergency orthopedic orthopaedic pediatric pediatrics neurology cardiology oncology urology dermatology gastroenterology gi ent walk-in community local county "
        "outside this our the a an general teaching university acute tertiary referring another state nursing rehabilitation rehab day mental health "
        "behavioral psychiatric children's women's men's veterans private public student public prior previous skilled long-term assisted group respiratory "
        "current same index anticoagulation coumadin hypertension allergy dental foot spine hand vision hearing fertility infusion dialysis imaging "
        "laboratory lab sample your my his her their in at to from for and or of with no by is was on under physical plan course history data reason brief "
        "past personal elective same-day major minor ambulatory robotic laparoscopic open cardiac vascular thoracic plastic general oral bariatric sinus "
        "back knee hip cataract neuro attending consulting generic prescribed illicit recreational street iv over-the-counter transport oxygen equipment".split()
    ),
    eponym_heads=frozenset(
        "disease diseases syndrome sign signs test tests catheter catheters clamp clamps forceps retractor retractors procedure maneuver score scale tube drain palsy lymphoma "
        "sarcoma fracture fractures contracture criteria classification grade stage stages phenomenon reflex reflexes tumor tumors esophagus cyst ulcer operation repair "
        "incision technique position stitch suture sutures needle needles cannula graft prosthesis implant valve line lines rod rods wire wires pin pins plate plates scissors elevator curette "
        "rongeur speculum blade knife bovie solution stain dementia disorder thyroiditis anemia node nodes nodule ring rings pouch canal duct ligament tendon "
        "space fascia fold membrane foramen ganglion gland glands body bodies cell cells triangle fever chorea ataxia nephropathy aphasia area hernia "
        "lesion injury deformity hook holder trocar port balloon stent pump monitor dressing boot brace collar splint wrap bag index ratio formula equation "
        "protocol regimen inventory questionnaire examination exam response gastroplasty fundoplication anastomosis gastrectomy arthroplasty osteotomy "
        "block spots lines points nails nail breathing respirations approach flap mesh bone sweep dilator dilators probe tip suction rule hernias retractor's pouch pouches vest naming shaver orbitopathy pegboard tasks battery".split()
    ),
    given=("given",),
    family=("family",),
    places=("places-us", "places-abroad"),
    facilities=("facilities-us",),
    ordinary=("ordinary-en",),
    eponyms=("eponyms-en",),
)
