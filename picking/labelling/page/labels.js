// Labels of one micrograph, and what an action does to them: as picking/labelling/folder/actions.py

/** Labels from the server's JSON: marks by id as {y, x, particle}, strokes of junk, two flags. */
export function fromJson(json) {
  const marks = new Map();
  for (const [id, y, x, particle] of json.marks) marks.set(id, { y, x, particle });
  return { marks, junk: [...json.junk], complete: json.complete, left_out: json.left_out };
}

export function copy(labels) {
  return { ...labels, marks: new Map(labels.marks), junk: [...labels.junk] };
}

/** Change labels in place as an action says; undo and redo are the server's. */
export function apply(labels, action) {
  const { do: kind, id } = action;
  if (kind === 'add' || kind === 'add_negative') {
    labels.marks.set(id, { y: action.y, x: action.x, particle: kind === 'add' });
  } else if (kind === 'move') {
    const mark = labels.marks.get(action.mark);
    if (mark) labels.marks.set(action.mark, { ...mark, y: action.y, x: action.x });
  } else if (kind === 'remove') {
    labels.marks.delete(action.mark);
  } else if (kind === 'accept' || kind === 'reject') {
    action.centres.forEach(([y, x], number) => {
      labels.marks.set(`${id}.${number}`, { y, x, particle: kind === 'accept' });
    });
  } else if (kind === 'junk') {
    labels.junk.push({ path: action.path, radius: action.radius, erase: action.erase });
  } else if (kind === 'complete' || kind === 'not_complete') {
    labels.complete = kind === 'complete';
  } else if (kind === 'leave_out' || kind === 'take_back') {
    labels.left_out = kind === 'leave_out';
  }
}

/** The labels that show: those the server has, then what it has not confirmed yet. */
export function shown(confirmed, pending) {
  if (!pending.length) return confirmed;
  const undone = new Set(pending.filter((a) => a.do === 'undo').map((a) => a.of));
  const labels = copy(confirmed);
  for (const action of pending) if (!undone.has(action.id)) apply(labels, action);
  return labels;
}

export function stateOf(labels) {
  if (labels.left_out) return 'left out';
  if (labels.complete) return 'complete';
  return labels.marks.size || labels.junk.length ? 'in part' : 'untouched';
}

export function countsOf(labels) {
  let particles = 0;
  for (const mark of labels.marks.values()) if (mark.particle) particles += 1;
  return { particles, negatives: labels.marks.size - particles };
}

/** An id that nobody else makes. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
