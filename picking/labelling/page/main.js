// The page: what is open, what is shown of it, and what each button, key and push does.

import { Connection, getJson } from './connection.js';
import { Grid } from './grid.js';
import { listenToKeys } from './keys.js';
import { apply, countsOf, fromJson, newId, shown, stateOf } from './labels.js';
import { Learning } from './learning.js';
import { Overlay } from './overlay.js';
import { Strip } from './strip.js';
import { listen } from './tools.js';
import { View } from './view.js';
import { Viewer } from './viewer.js';
import { HINTS, say, sayLabels, sayProgress, sayReadOnly, sayTrouble } from './words.js';

// The token has become a cookie: it need not stay in the address, nor in the history
if (location.search) history.replaceState(null, '', '/');

const $ = (id) => document.getElementById(id);
const empty = { marks: new Map(), junk: [], complete: false, left_out: false };
const scene = { labels: empty, diameter: 1, visible: true, proposals: [] };
let session = null;
let open = null; // what the server says of the micrograph that is open
let confirmed = empty; // its labels as the server has them
let place = null; // of that micrograph
let wanted = null; // the place that was asked for last
let early = []; // what was pushed while the server's answer on that was on its way
let next = null;
let tool = 'pick';
let ends = { undo: null, redo: null };
let grid = null;

const viewer = new Viewer($('image'), () => overlay.draw(scene));
const overlay = new Overlay($('overlay'), viewer);
const view = new View(viewer, scene);
const strip = new Strip($('strip'), (chosen) => openMicrograph(chosen));
const connection = new Connection({
  connected: refresh,
  pushed,
  answered: () => relabel(),
  refused: (why) => say(`Not done: ${why}`, 8000),
  learned: (state) => learning.update(state),
  status: sayTrouble,
});

// What is open

async function refresh() {
  try {
    const answer = await getJson('/session');
    if (!connection.belongsTo(answer.id)) {
      throw new Error('The server has come to serve another folder of labels: reload this page.');
    }
    session = answer;
  } catch (error) {
    say(error.message, 60_000);
    return;
  }
  ends = session;
  getJson('/learning').then((state) => learning.update(state), () => {});
  document.title = `${session.folder} – labelling`;
  strip.fill(session.micrographs);
  sayProgress(session.micrographs);
  sayReadOnly(session.used_by);
  if (place === null && wanted === null) {
    const kept = session.micrographs.findIndex((row) => row.name === remembered());
    const first = kept >= 0 ? kept : (await getJson('/next').catch(() => null))?.micrograph ?? 0;
    await openMicrograph(first);
  } else {
    await openMicrograph(wanted ?? place, true);
  }
}

function remembered() {
  try {
    return sessionStorage.getItem('labelling open');
  } catch {
    return null;
  }
}

async function openMicrograph(chosen, isAgain = false) {
  const start = performance.now();
  wanted = chosen;
  strip.select(chosen);
  const row = session.micrographs[chosen];
  if (!isAgain) {
    // Whatever is clicked must be on what is seen: nothing of the last one stays
    [place, open, confirmed] = [chosen, null, empty];
    viewer.open(null);
    $('message').textContent = `Opening ${row.name} …`;
    $('name').textContent = row.name;
    relabel();
    learning.open(chosen);
    next = null; // what was proposed was this one
    $('next').disabled = true;
  }
  early = [];
  try {
    const answer = await getJson(`/micrographs/${chosen}`);
    if (wanted !== chosen) return;
    const isOther = open?.stamp !== answer.stamp;
    [place, open, confirmed] = [chosen, answer, fromJson(answer.labels)];
    early.forEach(takeIn);
    $('message').textContent = '';
    relabel();
    if (isOther) viewer.open(answer, session.tile_px);
    view.update(); // the low-pass goes by the diameter there
    try {
      sessionStorage.setItem('labelling open', row.name);
    } catch {
      // no storage: a reload opens what is proposed
    }
  } catch (error) {
    if (wanted === chosen) $('message').textContent = error.message;
  }
  document.body.dataset.opened = String(chosen);
  delete document.body.dataset.shownMs;
  viewer.whenSharp = () => {
    document.body.dataset.shownMs = (performance.now() - start).toFixed(0);
  };
  await proposeNext();
}

async function proposeNext() {
  next = await getJson(`/next?after=${place}`).catch(() => null);
  $('next').disabled = !next;
  $('next-why').textContent = next ? `${next.name}: ${next.why}` : 'Nothing else is left to look at.';
}

// Labels

function relabel() {
  const pending = connection.pending.filter((a) => !a.micrograph || a.micrograph === openName());
  scene.labels = shown(confirmed, pending);
  scene.diameter = open?.diameter_px ?? 1;
  grid = null;
  learning.show();
  const { labels } = scene;
  sayLabels({ labels, state: stateOf(labels), ...countsOf(labels) });
  const n = connection.pending.length;
  $('saved').textContent = n ? `${n} not saved yet` : session?.used_by ? 'read-only' : 'saved';
  $('saved').classList.toggle('waiting', n > 0);
  const can = !isReadOnly();
  $('undo').disabled = !can || !(lastPending() ?? ends.undo);
  $('redo').disabled = !can || !ends.redo;
  for (const id of ['complete', 'leave-out', 'tool-junk', 'tool-erase']) $(id).disabled = !can;
  viewer.redraw(false);
}

function openName() {
  return session?.micrographs[place]?.name;
}

function isReadOnly() {
  return !session || Boolean(session.used_by);
}

function act(kind, content = {}) {
  if (isReadOnly() || !open) return;
  connection.send({ id: newId(), do: kind, micrograph: openName(), ...content });
}

/** The id of the last action that the server has not confirmed and that is not undone. */
function lastPending() {
  const undone = new Set(connection.pending.filter((a) => a.do === 'undo').map((a) => a.of));
  return connection.pending.filter((a) => a.micrograph && !undone.has(a.id)).pop()?.id ?? null;
}

function undo() {
  if ($('undo').disabled) return;
  connection.send({ id: newId(), do: 'undo', of: lastPending() });
}

function redo() {
  if (!$('redo').disabled) connection.send({ id: newId(), do: 'redo', of: null });
}

function pushed(message) {
  ends = message;
  const { event, micrograph, row } = message;
  if (row) {
    session.micrographs[micrograph] = row;
    strip.update(micrograph, row);
  }
  if (micrograph === wanted) early.push(message);
  if (micrograph === place && open) takeIn(message);
  const isTurn = event.do === 'undo' || event.do === 'redo';
  if (isTurn && micrograph !== undefined && micrograph !== place && connection.sent.has(event.id)) {
    say(`${event.do === 'undo' ? 'Undone' : 'Done again'} on ${row.name}`, 5000);
    openMicrograph(micrograph);
  }
  relabel();
  sayProgress(session.micrographs);
}

/** Change the labels of the open micrograph as a message says, unless they are newer. */
function takeIn({ n, event, labels }) {
  if (n <= open.n) return;
  open.n = n;
  if (labels) confirmed = fromJson(labels);
  else apply(confirmed, event);
}

// Tools and view

function chooseTool(name) {
  tool = name;
  for (const one of Object.keys(HINTS)) {
    $(`tool-${one}`).setAttribute('aria-pressed', String(one === name));
  }
  $('tool-hint').textContent = HINTS[name];
  $('brush-row').hidden = name === 'pick';
  scene.hovered = null;
  scene.brush = name === 'pick' ? null : brush();
  viewer.redraw(false);
}

function brush() {
  return (Number($('brush').value) / 100) * scene.diameter;
}

function resizeBrush(factor) {
  $('brush').value = Number($('brush').value) * factor;
  chooseTool(tool);
}

function step(by) {
  const other = strip.beside(place, by);
  if (other !== null) openMicrograph(other);
}

const commands = [
  [['z', 'Ctrl+z'], 'undo', undo],
  [['Shift+z', 'Ctrl+Shift+z', 'Ctrl+y'], 'redo', redo],
  [['n'], 'next micrograph that is worth a look', () => next && openMicrograph(next.micrograph)],
  [['ArrowLeft'], 'the one before in the strip', () => step(-1)],
  [['ArrowRight'], 'the one after in the strip', () => step(1)],
  [['c'], 'complete: every particle is marked; again: not', () =>
    act(scene.labels.complete ? 'not_complete' : 'complete')],
  [['x'], 'leave this micrograph out; again: take it back', () =>
    act(scene.labels.left_out ? 'take_back' : 'leave_out')],
  [['a'], 'accept all proposals on this micrograph', () => learning.all('accept')],
  [['p', 'Escape'], 'pick', () => chooseTool('pick')],
  [['b'], 'paint junk; with Alt held: erase', () => chooseTool('junk')],
  [['e'], 'erase junk', () => chooseTool('erase')],
  [['['], 'smaller brush', () => resizeBrush(0.8)],
  [[']'], 'larger brush', () => resizeBrush(1.25)],
  [['i'], 'invert', () => view.toggle('invert')],
  [['h'], 'hide or show marks', () => view.toggle('show-marks')],
  [['+', '='], 'zoom in', () => view.zoom(1.4)],
  [['-'], 'zoom out', () => view.zoom(1 / 1.4)],
  [['0'], 'the whole micrograph', () => open && viewer.fit()],
  [['?'], 'these keys', () => $('help').showModal()],
];
listenToKeys(commands, $('help-rows'));
const command = (key) => commands.find(([keys]) => keys.includes(key))[2];
for (const [id, key] of Object.entries({
  undo: 'z', redo: 'Shift+z', next: 'n', complete: 'c', 'leave-out': 'x', 'tool-pick': 'p',
  'tool-junk': 'b', 'tool-erase': 'e', 'zoom-in': '+', 'zoom-out': '-', 'zoom-fit': '0',
  'help-button': '?',
})) {
  $(id).addEventListener('click', command(key));
}
$('brush').addEventListener('input', () => chooseTool(tool));
$('filter').addEventListener('change', (event) => strip.setFilter(event.target.value));
window.addEventListener('beforeunload', (event) => {
  if (connection.pending.length) event.preventDefault();
});

const page = {
  viewer,
  scene,
  tool: () => tool,
  brush,
  isReadOnly,
  act,
  redraw: () => viewer.redraw(false),
  say,
  boxed: (area) => learning.offer(area, viewer),
  proposed: () => place !== null && proposeNext(),
  numbered: (numbers) => strip.setProposals(numbers),
  proposalAt: (y, x, reach) => learning.at(y, x, reach),
  grid: () => {
    grid ??= new Grid(scene.labels.marks, Math.max(scene.diameter, 7 / viewer.scale, 1));
    return grid;
  },
};
const learning = new Learning(page);
listen($('overlay'), page);
chooseTool('pick');
connection.connect();
// For the console and for tests: where a place of the micrograph is in the window
globalThis.labelling = {
  act,
  toWindow: (y, x) => {
    const box = viewer.canvas.getBoundingClientRect();
    const point = viewer.toScreen({ y, x });
    return { x: box.left + point.x, y: box.top + point.y };
  },
  proposals: () => scene.proposals.map(({ y, x, score }) => [y, x, score]),
  marks: () => [...scene.labels.marks.values()].map(({ y, x, particle }) => [y, x, particle]),
};
