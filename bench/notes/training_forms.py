"""Wordings that training notes are composed of: ``[this|that]`` is one of both, ``{slot}`` an identifier.

Variety is the point: the same fact said by a nurse, a clerk, a surgeon in a hurry and a British letter writer. The second
half of what is here identifies nobody and looks as if it did.
"""

from __future__ import annotations

import random
import re
from typing import Final

__all__ = ["FIELDS", "HEADS", "NEGATIVES", "SENTENCES", "TAILS", "header", "spoken"]

_ROLE: Final = (
    "[nurse|RN|charge nurse|night nurse|staff nurse|midwife|matron|health visitor|chaplain|dietician|dietitian|pharmacist|case manager|"
    "care coordinator|discharge coordinator|physical therapist|physiotherapist|PT|OT|SLP|speech therapist|respiratory therapist|RT|social worker|"
    "resident|intern|fellow|NP|PA|technician|tech|sonographer|radiographer|anaesthetist|anesthesiologist|registrar|SHO|house officer|"
    "consultant|paramedic|secretary|interpreter|podiatrist|optometrist|surgeon|hospitalist|orderly|wound nurse|research nurse|GP|"
    "cardiology|GI|ortho|neuro|renal|oncology|anesthesia|psych|audiologist|psychologist|counselor|doula|volunteer]"
)
_KIN: Final = (
    "[husband|wife|spouse|partner|son|daughter|dtr|mother|mom|mum|father|dad|brother|sister|aunt|uncle|niece|nephew|cousin|grandson|"
    "granddaughter|grandmother|grandfather|friend|neighbor|neighbour|roommate|fiance|girlfriend|boyfriend|guardian|stepson|carer|aide|"
    "caregiver|sister-in-law|ex-wife|twin|foster mother|landlord|sitter|boss|coworker]"
)
_DID: Final = (
    "[aware|notified|called|paged|updated|informed|at bedside|present|agrees|to see|will follow|reviewed|here now|phoned back|signed off|"
    "in to see pt|assessed|recommends CT|changed the dressing|placed the line|cleared pt|says ok|took report|witnessed|assisted|visited|"
    "will bring clothes|wants to be called|left at 2100|went home|asked about diet|translated|drove him in|was told|concerned|not reached]"
)
_COMPLAINT: Final = (
    "[c/o nausea|denies pain|resting quietly|slept well|tolerated lunch|ambulated x2|refused meds|reports dizziness|feels better|had a fall|"
    "is here for follow up|presents with cough|was found on the floor|wants to go home|is anxious|has been well|came in with chest pain|"
    "stable overnight|afebrile|continues on warfarin|vomited twice|stopped smoking|complains of back pain|underwent dialysis|is doing fine]"
)

HEADS: Final = """
[Patient|Patient Name|Name|PT|Pt name|NAME OF PATIENT|Client|Resident]: {patient}\\n[MR #|MRN|Chart|Unit No|Hosp No|URN|Record]: {number}\\n[Admission|Admitted|Date of visit|Seen]: {date}\\n[Physician|Attending|Provider|Consultant]: {doctor}[, MD|, DO||]
[NAME|PT]: {patient} | DOB {date} | MRN {number} | {facility}
{facility}\\n{street}\\n{city}, {state} {zip}\\n[Tel|Phone|Ph|T]: {phone}  [Fax|F]: {phone}\\n\\n[Pt|Patient] {patient}   [Acct|Account] {number}
{facility}\\n{street}, {city}\\n{austate} {auzip}\\n[Tel|Ph|Telephone] {phone}
{facility}, {street}, {town} {postcode}\\n[Direct line|Tel|Switchboard|Secretary] {phone}\\n\\n{doctor}\\n[The Surgery|Health Centre]\\n{street}\\n{town}\\n{postcode}
{patient}\\n{street}\\n{city}, {state} {zip}\\n\\nDear {title} {last}[,|:]
Re: {patient}[, born |  DOB |, d.o.b. |  D.O.B.: ]{date}\\n\\nDear [Dr. |Dr |Mr |Ms |]{doctor}, [thank you for referring|many thanks for asking us to see|thank you for your letter about] {patient}.
[Dear|Hello|Hi] {first}[,|:|]\\n
Client: {patient} / Clinician: {doctor} / Seen: {date} / Location: {facility}, {city}
[DISCHARGE SUMMARY|TRANSFER SUMMARY|INTERIM SUMMARY]\\n{patient}\\nAdmitted: {date}   Discharged: {date}\\nAttending MD: {doctor}\\nConsultants: {doctor}; {doctor}
{date}\\n{doctor}, M.D.\\n{facility}\\n{city} {state}\\n\\nRegarding: {patient} (chart {number})
Surname: {last}  Forename: {first}  Hospital No: {number}  GP: Dr {doctor}
Visit on {date} with {doctor} NP. {patient}, {age} y.o., lives in {city}.
SSN {number}  Insurance ID {number}  Emergency contact: {relative} ({phone})
PT: {patient}  DATE: {date}  ROOM: 12  ATTG: {doctor}
{last}, {first}   {number}   {date}
{patient}   [MR|MRN|ID|#|HN|UR]{number}   [DOB|B|born] {date}
{patient} ({number})
{date}   [0640|1915|2300|07:10|3 pm]
{date} [nursing|phone|addendum|progress] note
From: {doctor} <{email}>\\nTo: {doctor}\\n[Sent|Date]: {date} 11:20 AM\\nSubject: {last}
[Fall risk assessed|Consent obtained|Skin check done|Labs drawn] {date}. [Nurse|By] {doctor} RN, {facility}.
[CT|MR|XR|US] [abdomen|knee|pelvis|head]  {date}\\nPATIENT: {patient}   [SEX/AGE|AGE/SEX]: [M / {age}|F / {age}|{age} / F]   ORDERED BY: {doctor}
Specimen {number}   {patient} ({date})   Submitting: {doctor}   Collected {date}
{initials}. [{age}M|{age}F|{age} yo]. [CC|HPI]: weakness x 2d, from {city}
""".strip().splitlines()

SENTENCES: Final = f"""
{_ROLE} {{doctor}} {_DID}.
{_ROLE} {{doctor}} {_DID}
{{doctor}}, {_ROLE}, {_DID}.
{{doctor}} ({_ROLE}) {_DID}.
[seen by|d/w|discussed with|discussed w/|per|ok per|signed out to|report given to|report from|handed over to|spoke with|spoke to|reviewed with|under|accepted by|wound care by|read by|taught by|delivered by|sutured by|consult to|referred to|signed,|interpreted by] {{doctor}}[.|,|;|]
[seen by|done by|performed by|assisted by|taught by] {_ROLE} {{doctor}}.
Our {_ROLE}, {{doctor}}, {_DID}.
{_KIN} {{relative}} {_DID}.
{_KIN} {{relative}} {_DID}, ph {{phone}}
[Her|His|The patient's|Pt's|their] {_KIN}, {{relative}}, {_DID}.
[her|his|pt's] {_KIN} {{relative}} {_DID}
{{relative}} ({_KIN}) {_DID}, [cell|mobile|reach at|phone] {{phone}}.
{{relative}}, [his|her|the patient's] {_KIN}, {_DID}.
[spoke w/|called|left message for|family informed:|NOK:|contact:|next of kin] {{relative}}[.|, {{phone}}.|]
[lives w/|lives with|cared for by|visited by|here with|accompanied by|raised by] {_KIN} {{relative}}.
[pt|Pt|Patient|Client|resident|] {{first}} {_COMPLAINT}.
[pt|Pt|Mr|Mrs|Ms|Mr.|Mrs.|Ms.|Miss|Master] {{last}} {_COMPLAINT}.
{{patient}} {_COMPLAINT}.
[pt|patient|client|res] [{{last}}|{{first}}] [rm 12|bed 3|oob|up to chair|a&o x3|resting|to CT|npo|dozing|on o2|in bed|sat up|ambulating w/ walker][,|.|]
[wound care|dressing|trach care|bath|foley care|teaching|ekg|assessment|evening care] done by {{doctor}}[.|,]
[report|handoff|sbar|update] [given to|to|from] {{doctor}}[.|,| rn.]
[paged|called|texted|notified] {{doctor}} [re|about|for] [bp|labs|pain|fever], [returned call|new orders|no answer].
{_KIN} {{relative}} [on the phone|phoned from {{phone}}|took clothes home|will be back after work|at bs|in room].
[pt|she|he|client] [states|says] [wants to go back to|lives alone in|walks daily in|was born in] {{city}}.
[next visit|next session|next tx|msg|called|seen|due|bed available] {{date}}[.|,| at 3 pm.| 4:10p]
{{first}} {{last}} is a [{{age}}|56|71|8]-year-old [man|woman|retired teacher|lawyer] who {_COMPLAINT}.
{{initials}} is a [{{age}}|49]M [w/|with] [COPD|CHF|cirrhosis].
[I saw|I reviewed|I met|We saw|Thank you for sending|It was good to see] {{first}} [in the {{city}} clinic|today|on {{date}}|with [his|her] mum].
[{{first}}|{{last}}] [describes|recalls|enjoys|prefers|avoids|attends|asked for|was offered|was given|met] [long walks|loud noise|a second opinion|tea|physiotherapy].
[could you look at|please see|please book|please call] {{first}} {{last}} (MRN {{number}}, {{facility}})?
[Baby|Baby boy|Baby girl|Infant] {{last}}, [named|called] {{first}}, was born [on|at {{facility}} on] {{date}}.
[live girl|live boy|twin 2], {{first}}, [3100|2980] g
{{first}} says the pain began after a trip to {{city}}.
[He|She|Pt|The family] [comes from|moved here from|grew up in|is visiting from|lives near|drove in from|farms outside|lives out past|works in|wants to return to|came in from|retired to] {{city}}[, {{state}}|].
[transferred|referred|admitted|tx'd|sent] from {{facility}}[, {{city}}| in {{city}}|] [via ambulance|by air|on {{date}}|].
[accepted at|followed at|labs at|films from|records from|seen at|went to|had surgery at|dressings at|clinic at|delivered at] {{facility}}[.| on {{date}}.| in {{city}}.|, {{city}}.]
[bed available at|accepted to|returns to|discharged to|lives at|resident of|from] {{home}}[.|, bed ready {{date}}.| {{date}}]
[works for|works at|retired from|employed by|laid off from|insured through|drives for|foreman at|owns] {{org}}[.| in {{city}}.]
[pharmacy is|pharm:|scripts to|pick up at|sent to|called in to|uses] {{pharmacy}}[ in {{city}}|][, {{phone}}|].
[attends|goes to|teaches at|student at|pupil at|in year 5 at|in the 3rd grade at|dropped out of] {{school}}[.| in {{city}}.]
[attends|member of|funeral at|visited by the pastor of|married at] {{church}}.
[transport|equipment|oxygen|home health|infusion|supplies] [by|from|via|through|arranged with|] {{org}}[, {{phone}}| {{phone}}|].
[Resides|Lives|Address:|moved to|home is] {{street}}, {{city}}[, {{state}} {{zip}}|].
[Lives|Resides at|Address] {{street}}, {{town}} {{postcode}}.
{{street}} {{city}} {{austate}} {{auzip}}  [Mob|Ph|Tel]: {{phone}}
mail to {{pobox}}, {{city}}, {{state}} {{zip}}
[MVC|crash|fell|struck by car|found down] on {{streetname}}[ in {{city}}|].
[Labs|Film|Records] from {{facility}} dated {{date}} were reviewed.
[The|His|Her] [grandfather|grandmother|father|mother|great-aunt] [lived to|died at|is|reached] {{age}}.
{{patient}} will be {{age}} [soon|in {{month}}].
[{{age}} yo|{{age}} y/o|{{age}}M|{{age}}F|{{age}} year old] [with fall|who fell|admitted with pneumonia|w/ AMS].
Call {{doctor}} at {{phone}} with results.
[call|ring|page|pager|phone|reach|tel|cell|fax|cb] {{phone}}[.| if worse.| after hours.]
[Please send a copy to|e-mail|contact by email:|address is|portal message from] {{email}}.
[see|handout at|results at|sign up on|directions at|help at|website] {{url}}.
[login|user name|portal id|username] {{username}}[.|;]
[serial|serial no.|S/N|lot|model|device ID|asset] {{number}} [was placed|implanted {{date}}|checked by {{doctor}}|recorded].
[plate|license plate|reg|tag] {{plate}}[.|, silver sedan.]
[policy|member ID|insurance|claim|auth|group|Medicare|Medicare No|Medicaid] {{number}}.
[case|accession|order|req|specimen|study ID|job|report|requisition|sample|trial] [no. |# |]{{number}}[.| reviewed.| pending.]
[NPI|DEA|license|licence|lic|GMC|Provider No.|CLIA|driver's license|passport] {{number}}[.|]
[SSN|ss#|soc sec|NHS no|NHS number|UR|URN|MRN|hosp no|chart no|unit number|history no.] {{number}}.
On {{date}} {{first}} fell at home.
[next visit|f/u|RTC|recheck|return|clinic|appt|follow up|due back|next tx] [on |]{{date}}[ with {{doctor}}|].
[symptoms since|onset|started|stopped|last seen|LMP|surgery|imaging of|biopsy|labs|cultures] {{date}}[.|: negative.|: normal.]
[stay|admitted] {{date}} [to|-|through] {{date}}
[the results of|compare|study from|since|in] {{month}}[.|, unchanged.]
Implant (serial {{number}}) was placed by {{doctor}} in {{city}} on {{date}}.
[signed|/s/|/es/|s/|verified|electronically signed] {{doctor}}[, MD| RN| MD|] {{date}}[ 1412| 08:15|]
Biopsy {{number}} was read by Dr. {{doctor}} at {{facility}}.
Seen with {{doctor}}, PA-C, and the interpreter, {{relative}}.
{{first}} goes to school in {{city}}; teacher is {{relative}}.
Records (MRN {{number}}) were faxed to {{facility}} at {{phone}}.
[answers to|nickname|goes by|likes to be called|signs as|known as] "{{first}}".
[brother|sister|children|siblings|sons]: {{relative}}, {{relative}} and {{relative}}.
[Mr and Mrs|Mr. and Mrs.|the] {{last}}[s|] [were seen|live in {{city}}|agree].
[Prof|Professor|Sister|Nurse|Matron|Rev.|Pastor|Officer|Judge|Sgt|Father] {{doctor}} {_DID}.
""".strip().splitlines()

TAILS: Final = """
{doctor}, MD\\n{facility}
Signed: {doctor} {date}
[Dictated|Transcribed|Typed] by {doctor} on {date}\\n[cc|copies|cc.]: {doctor}, {doctor}
Electronically authenticated {date} by {doctor}, DO
{doctor} M.D.\\n[D|DD] {date} [T|DT] {date} Job {number}
[Sincerely|Yours sincerely|Yours truly|Kind regards|With best wishes|Best wishes|Regards|Respectfully|Many thanks|Cheers][,|]\\n[\\n|]{doctor}[, MD| MBBS FRCP||]\\n[Consultant Physician|Specialist Registrar|Staff Surgeon|Practice Nurse|General Practitioner|{street}\\n{city}, {state} {zip}\\n{phone}|]
Transcribed {date} / {doctor} / {number}
Reviewed with attending Dr. {doctor}.
c/o {relative}, {street}, {city}, {state} {zip}
For {first} {last} by {doctor}, RN, {date}
[{initials}/mk|{initials}:tr|{initials} {date}|job {number}. {initials}/ab]
- {doctor} [RN|LPN|CNA|MA|PT|] [x{ext}|ext {ext}|pgr {ext}|]
{doctor} {doctor2} [RN|NP|EN]
cc [Mr|Ms|Mrs] {patient}
""".strip().splitlines()

FIELDS: Final = """
Patient|Patient name|Name|Name of patient|Pat|Pt|Client|Employee|Member|Insured = patient
Date of birth|DOB|Birth|Born|D.O.B.|Birth date = date
Record number|MRN|Chart no|Unit number|Hospital no.|History number|File|ID|UR no|NHS no = number
Account|Acct no|Encounter|Visit no|FIN|Guarantor no = number
Attending|Surgeon|Physician|Consultant|Assistant|Anesthesia|Anesthesiologist|Referring|Ordered by|PCP|GP|Doctor|Nurse|Technologist|Discharging team|Clinician|Therapist = doctor
Date|Date of service|Admit|Discharge|Day of operation|Received|Collected|Printed|Exam date|Injury = date
Next of kin|Contact|Emergency contact|Spouse|Mother|Guardian|Informant = relative
Phone|Tel|Home phone|Mobile|Contact no|Cell = phone
Fax|Fax no = phone
Address|Home address|Street = street
City|Town|Suburb = city
Employer|Employed by|Company = org
Facility|Hospital|Location|Sent from|Site = facility
Insurance ID|Policy|Member no|Medicare|Group|Claim|Payer = number
E-mail|Email = email
SSN|Soc Sec|Social = number
Pharmacy = pharmacy
""".strip().splitlines()

NEGATIVES: Final = """
Braden [14|17|20]. [Morse 45.|Fall precautions.]
heels floated, braden [12|15]. [foley|NG tube|jp drain] to gravity.
[Mode|Programmed] [VVI|DDD|AAI] [60-130|50|70-120]. [Threshold 0.5 V @ 0.4 ms.|Impedance 510 ohm.]
[0340|0715|1430|2210] [vitals stable.|pt turned.|meds given.|pgr off.]
growth on the [25th|50th|9th|97th] [centile|percentile].
transferred to [5 West|3 North|4 East|the floor|ICU|step down].
BP [98/52|142/88] HR [92|110] [sat|SpO2] [94%|88%] [4L|RA].
[labs|Labs]: WBC [9.2|17.3] Hgb [11|10.4] Plt [203|188] Na [131|140] K 4.8 Cr 1.9.
[ABN|Clinic code|Form] [12 rev 3|B|A-2].
[CCDS|OCN|CGC|FRACGP|FRCP|FAAP|PsyD|MBBS|LCSW|CRNA] [certified.|credential on file.]
[A/P|Plan|Imp]: [sepsis 2/2 CAP|AECOPD|AKI|NSTEMI] - [nebs|pred 40|ctx/azithro|heparin gtt|hold acei].
[Homans|Babinski|Romberg|Kernig|Murphy|McBurney|Tinel|Phalen|Lachman|McMurray|Hawkins|Spurling|Trendelenburg] [sign|test] [negative|positive|absent].
[Penrose|Jackson-Pratt|Hemovac|Blake|Foley|Hickman|Swan-Ganz|Veress|Bovie|Kocher|Allis|Balfour|Weitlaner] [drain|catheter|retractor|clamp|needle] [in place|was used|removed].
[Schmorl|Baker's|Bartholin] [nodes|cyst] [noted|unchanged].
[Gleason|Bishop|Apgar|Ranson|Wells|Child-Pugh|Glasgow|Killip|Rutherford|Breslow] [score|class|grade] [6|B|3].
[Slides|Images|Films|Charts|Notes] [shown to the team|were reviewed|to follow].
[Dialyzer|Transport|Equipment|Interpreter|Pharmacy|Physio] [arranged|ordered|not needed|to see].
[Ward|Labour ward|Day unit|Clinic|Surgery|Theatre] [record|round|list|booked|full].
[Medicare|Medicaid|Blue Cross|Humana|Aetna|Cigna|the VA] [pending|denied|approved|is primary].
prior auth line [busy|closed]. [Code|Status]: [full|DNR].
[Navy|Army|Air Force|Marine] veteran, [Vietnam era|honorably discharged].
[told|asked|advised] to [use half|take 1/2 tab|come back] till [monday|seen|better].
3 pm. Release signed for [school|the insurer|records].
[Gravida|G][3|2]P[1|2], [39+4|28 2/7 wk], cx [4|9] cm, [SROM|clear liquor|fully at 1055].
[Strength|Motor] 5/5, [pain|c/o pain] [6/10|4/10|3/10], DTR 2+.
[rounding|nebs|transfer|via EMS|floated|planner|consult] [done|today|pending].
[Vicryl|Monocryl|Prolene|Ethibond|Norco|Lantus|Zosyn|Ancef|Lovenox|Keppra|Coumadin|Lasix|Tylenol] [used|given|held|2-0].
Meals on Wheels, lifeline [button|pendant], [walker|cane] at home.
Speaks [Spanish|Somali|Polish|Tagalog|Vietnamese]. [Catholic|Muslim|Baptist|Jewish], [widowed|single|married].
[Phone|Fax|Tel|E-mail|Contact] [not on file|unchanged|declined|see chart].
[Signed|Dictated|Reviewed|Faxed] [but not read|by phone|in error|today].
Page [1|2] of [2|3|5]. [MICU|Ortho|Neph|Renal] [accepts|rounding|to see]. RTC [3|6] mo.
[VE|vitals|checked] [0600|0940], [4 cm|stable]. [58F|97F|99F] [ITP|oral|axillary].
[January labs ok|flu shot in season|seen Tuesday|off weekends].
""".strip().splitlines()

_SEPARATORS: Final = (": ", ":", " - ", "  ", "    ", "\t", " ........ ", ":   ", " = ", " # ", ":\n", " ")


def spoken(draw: random.Random, form: str) -> str:
    """``form`` with its choices made."""
    while True:
        # Innermost first.
        chosen = re.sub(r"\[([^\[\]]*)\]", lambda found: draw.choice(found.group(1).split("|")), form)
        if chosen == form:
            return chosen.replace("\\n", "\n")
        form = chosen


def header(draw: random.Random) -> str:
    """A few fields as a table, a line, or a form in capitals."""
    rows = []
    separator, width = draw.choice(_SEPARATORS), draw.choice([0, 0, 18, 24])
    loud = draw.random() < 0.25
    for field in draw.sample(FIELDS, draw.randrange(2, 8)):
        labels, slot = field.split(" = ")
        label = draw.choice(labels.split("|"))
        label = label.upper() if loud else label
        filler = "." if width and draw.random() < 0.3 else " "
        rows.append(
            (label + " " if width and filler == "." else label).ljust(width, filler)
            + (separator if not width else " " * 2)
            + f"{{{slot}}}"
        )
    return draw.choice(["\n", "\n", "   ", " | ", "; ", ", "]).join(rows)
